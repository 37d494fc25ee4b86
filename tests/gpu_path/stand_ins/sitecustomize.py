"""Stands in for CUDA where verl, Trinity-RFT, vLLM and Ray ask for it; each with its reason, and none for our code.

Python loads a module of this name at the start of every process whose PYTHONPATH names its folder: main.py, Ray's
workers, vLLM's engine cores. No installed package is edited.
"""

import importlib.util
import os
import sys


def _torch(torch):
    # vllm_worker.update_weight and fsdp_workers.sync_weight wait for the GPU
    torch.cuda.synchronize = lambda device=None: None
    # fsdp_workers.update_actor reports the GPU's memory
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
        setattr(torch.cpu, name, lambda device=None: 0)
    torch.cpu.empty_cache = lambda: None
    # FSDP pins what the reference model offloads
    torch.Tensor.pin_memory = lambda self, *args: self
    # what the preflight counts when main.py will start a cluster of its own; a worker would take NCCL for it
    gpus = os.environ.get("FAKE_GPUS")
    if gpus and sys.argv[0].endswith("main.py"):
        torch.cuda.device_count = lambda: int(gpus)
    init = torch.distributed.init_process_group

    def init_process_group(backend=None, *args, **kwargs):
        # fsdp_workers' f"cpu:gloo,{get_device_name()}:{get_nccl_backend()}" names the device cpu twice
        return init("gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    torch.distributed.init_process_group = init_process_group


def _trinity_distributed(distributed):
    # the group of sync_method nccl: gloo, where Trinity insists on NCCL
    helper = distributed._new_process_group_helper

    def new_group(*args, backend=None, device_id=None, **kwargs):
        return helper(*args, backend=distributed.Backend("gloo"), **kwargs)

    distributed._new_process_group_helper = new_group


class _Cpu(str):
    """torch.device takes it as "cpu"; in fsdp_workers' f"cuda:{get_device_id()}" of the weight sync it reads as 0."""

    def __format__(self, spec):
        return "0"


def _verl_device(device):
    device.get_resource_name = lambda: "GPU"  # of Ray; without CUDA verl asks for NPUs
    device.get_nccl_backend = lambda: "gloo"
    device.get_device_id = lambda: _Cpu("cpu")


def _fsdp_init(init):
    # refuses CPU tensors, which gloo takes
    init._check_module_states_for_sync_module_states = lambda states: None


def _fsdp_api(api):
    # FSDP frees what it "moves" to the CPU when it was there before: the export would raise on rank 0, the others wait
    init = api.FullStateDictConfig.__init__

    def without_offload(self, *args, **kwargs):
        init(self, *args, **{**kwargs, "offload_to_cpu": False})

    api.FullStateDictConfig.__init__ = without_offload


def _ray_services(services):
    # Ray would turn 127.0.0.1 into the machine's address and listen on all interfaces
    services.resolve_ip_for_localhost = lambda host: host
    services.get_node_ip_address = lambda *args, **kwargs: "127.0.0.1"


def _ray_gpus(module):
    # of a cluster that ray.init() starts; `ray start` has a flag
    if gpus := os.environ.get("FAKE_GPUS"):
        module.NvidiaGPUAcceleratorManager.get_current_node_num_accelerators = staticmethod(lambda: int(gpus))


def _ray_cpus(utils):
    # the same: verl wants 3 of Ray's CPUs for each trainer GPU, and waits for them; `ray start` has a flag
    if os.environ.get("FAKE_GPUS"):
        utils.get_num_cpus = lambda *args, **kwargs: 16


def _vllm_ops(ops):
    # with AVX-512 the CPU build packs weights away and leaves empty ones, into which no weight sync can load
    ops._supports_onednn = False


_STAND_INS = {
    "torch": _torch,
    "torch.distributed.fsdp._init_utils": _fsdp_init,
    "torch.distributed.fsdp.api": _fsdp_api,
    "verl.utils.device": _verl_device,
    "vllm._custom_ops": _vllm_ops,
    "trinity.utils.distributed": _trinity_distributed,
    "ray._private.services": _ray_services,
    "ray._private.utils": _ray_cpus,
    "ray._private.accelerators.nvidia_gpu": _ray_gpus,
}


class _AfterImport:
    """Calls the stand-in of a module right after its import."""

    def find_spec(self, name, path=None, target=None):
        """Finds a module as usual and has its loader call the stand-in."""
        if name not in _STAND_INS:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                _STAND_INS[name](module)

            spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _AfterImport())
