"""The preflight: everything that a training run needs, checked before it costs anything, all findings at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tuner.learn_to_ask.core.records import Task
from tuner.learn_to_ask.domains import load_domain
from tuner.learn_to_ask.ray_cluster import RayCluster
from tuner.learn_to_ask.training.config_file import RunConfig
from tuner.learn_to_ask.training.dataset import train_file
from tuner.learn_to_ask.training.preflight.cluster import (
    check_attention,
    check_cpus,
    check_gpus,
    check_ray,
    grader_memory,
    shared_folder,
)
from tuner.learn_to_ask.training.preflight.data import (
    DatasetScan,
    check_learning_rate,
    check_prompt_lengths,
    dataset_findings,
    scan_dataset,
)
from tuner.learn_to_ask.training.preflight.findings import Finding, exit_code, guarded, print_findings
from tuner.learn_to_ask.training.preflight.models import (
    ModelPlace,
    check_checkpoints,
    check_disk,
    locate_model,
    model_finding,
)
from tuner.learn_to_ask.training.preflight.services import check_grader, check_monitor, check_tinker
from tuner.learn_to_ask.training.settings import TrainingSettings

_SAMPLE_TASK = Task(
    cid="preflight_0",
    session_id="preflight",
    messages=[{"role": "user", "content": "I have had a cough and a fever since yesterday."}],
    info_truth="symptom severity: fever of 39 degrees",
)


def check(settings: TrainingSettings, config: RunConfig) -> int:
    """Prints what a run would stumble over, all at once; every run starts with it.

    Returns:
        The exit code, 2 when a finding is fatal.
    """
    findings = preflight(settings, config)
    print_findings(findings)
    return exit_code(findings)


def preflight(settings: TrainingSettings, config: RunConfig) -> list[Finding]:
    """Runs every check, whatever the others find.

    Args:
        settings: The flags of main.py.
        config: What config.yaml says.
    """
    # A cluster that does not answer is waited for while the others are checked, which takes as long.
    executor = ThreadPoolExecutor(max_workers=1)
    asked = executor.submit(check_ray, config.ray_address)
    executor.shutdown(wait=False)
    scans: list[DatasetScan] = []
    clusters: list[RayCluster] = []
    policies: list[ModelPlace] = []

    def dataset() -> list[Finding]:
        scans.append(scan_dataset(train_file(settings.data), load_domain(settings.domain)))
        return dataset_findings(scans[0], settings)

    def ray() -> list[Finding]:
        cluster, finding = asked.result()
        clusters.extend([cluster] if cluster else [])
        return [finding, *shared_folder(cluster, config.job_folder)]

    def policy() -> list[Finding]:
        policies.append(locate_model(settings.model_path, weights=not config.tinker))
        return [model_finding("policy", settings.model_path, "--model_path", policies[0])]

    def grader_model() -> list[Finding]:
        path = settings.auxiliary_model_path
        place = locate_model(path)
        found = model_finding("grader model", path, "--auxiliary_model_path", place)
        return [found, *grader_memory(settings, config, place)]

    def grader() -> list[Finding]:
        missing = [flag for flag in ("grader_base_url", "grader_model") if not getattr(settings, flag)]
        if settings.grader == "openai" and missing:
            return [Finding("fatal", "grader", f"--{flag}: the openai grader needs it") for flag in missing]
        sample = scans[0].sample if scans else None
        return [check_grader(settings.grader_settings(), sample or _SAMPLE_TASK, load_domain(settings.domain))]

    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("dataset", dataset),
        ("checkpoints", lambda: [check_checkpoints(settings, config)]),
        ("learning rate", lambda: [check_learning_rate(settings, tinker=config.tinker)]),
        ("policy", policy),
        ("prompt lengths", lambda: [check_prompt_lengths(settings)]),
        ("ray", ray),
        ("monitor", lambda: [check_monitor(config)]),
    ]
    if config.tinker:
        checks.append(("tinker", lambda: [check_tinker(settings, config.base_url)]))
    else:
        if settings.grader == "auxiliary":
            checks.append(("grader model", grader_model))
        checks.append(("gpus", lambda: [check_gpus(settings, config, clusters[0] if clusters else None)]))
        checks.append(("cpus", lambda: check_cpus(settings, config, clusters[0] if clusters else None)))
        checks.append(("attention", lambda: [check_attention(config)]))
        checks.append(("disk", lambda: [check_disk(config.job_folder, policies[0].parameters if policies else None)]))
    checks.append(("grader", grader))
    return [finding for name, check in checks for finding in guarded(name, check)]
