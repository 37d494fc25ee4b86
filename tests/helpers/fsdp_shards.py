"""Saves a Hugging Face model as verl does after training it with FSDP: one process a rank, run with `save_shards`."""

import os
import subprocess
import sys
from pathlib import Path


def save_shards(model: Path, actor: Path, *, ranks: int) -> None:
    """Writes the shards of a model into the `actor` folder of a checkpoint, by verl's own checkpoint manager."""
    meeting_point = actor.parents[1] / "meeting_point"
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(ranks), str(model), str(actor), str(meeting_point)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    for process in processes:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
    meeting_point.unlink(missing_ok=True)


def _save(rank: int, ranks: int, model_path: str, actor: str, meeting_point: str) -> None:
    import torch.distributed
    from omegaconf import OmegaConf
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=ranks)
    model = AutoModelForCausalLM.from_pretrained(model_path)
    fully_shard(model, mesh=init_device_mesh("cpu", (ranks,), mesh_dim_names=("fsdp",)))
    FSDPCheckpointManager(
        model=model,
        processing_class=AutoTokenizer.from_pretrained(model_path),
        checkpoint_config=OmegaConf.create({"load_contents": ["model"], "save_contents": ["model"]}),
    ).save_checkpoint(actor, global_step=3)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _save(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
