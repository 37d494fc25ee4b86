"""What a session costs in tokens: the prompts of steps A and 3 counted with a model's tokenizer.

python benchmarks/tokens_a_session.py --model_path Qwen/Qwen2.5-32B-Instruct --input_file my_logs.jsonl
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tuner.learn_to_ask.core.labels import decision_truth, to_task
from tuner.learn_to_ask.core.records import Session
from tuner.learn_to_ask.core.segmentation import segment
from tuner.learn_to_ask.domains import add_domain_argument, load_domain
from tuner.learn_to_ask.engines.chat import ChatEncoder
from tuner.learn_to_ask.engines.offline import extractor
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl
from tuner.learn_to_ask.prompt import extraction_messages, grading_messages, rollout_messages
from tuner.learn_to_ask.training.estimate import GRADE_TOKENS, RESPONSE_TOKENS

REPEAT = 3  # rollouts of a sample, as published


def main() -> None:
    """Counts and prints."""
    from transformers import AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model_path", required=True, help="whose tokenizer and chat template count")
    parser.add_argument("--input_file", type=Path, required=True, help="raw sessions")
    add_domain_argument(parser)
    arguments = parser.parse_args()
    domain = load_domain(arguments.domain)
    extract = extractor(domain)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model_path)
    encoder = ChatEncoder(tokenizer, arguments.model_path)

    def tokens(messages: list[dict[str, str]]) -> int:
        return len(encoder.encode(messages)[0])

    counted: Counter[str] = Counter()
    for session in read_jsonl(arguments.input_file, Session, unique_key="session_id", report=ReadReport()):
        counted["sessions"] += 1
        for sample in segment(session):
            counted["samples"] += 1
            answer = "[]"
            if decision_truth(sample.remaining_chat) == "continue":
                asked = extraction_messages(sample.remaining_chat, domain)
                answer = extract(asked)
                counted["A calls"] += 1
                counted["A in"] += tokens(asked)
                counted["A shared"] += tokens(extraction_messages([], domain))
                counted["A out"] += len(tokenizer(answer)["input_ids"])
            task = to_task(sample.model_copy(update={"info_set": json.loads(answer)}))
            if task is None:
                continue
            counted["tasks"] += 1
            counted["3 in"] += tokens(rollout_messages(task.messages, "Ra+Rs", domain))
            if task.decision_truth == "continue":
                counted["graded"] += 1
                counted["G in"] += tokens(grading_messages(task.messages, "", task.info_truth, domain))

    def show(what: str, tokens: float, note: str = "") -> None:
        print(f"{what:<30} {tokens / counted['sessions']:10,.1f}  {note}".rstrip())

    graded = REPEAT * counted["graded"]
    print(f"a session of {counted['sessions']:,} of {arguments.input_file}, tokenizer of {arguments.model_path}")
    show("samples", counted["samples"])
    show("step A: requests", counted["A calls"])
    show("        prompt tokens", counted["A in"], f"{counted['A shared'] / counted['A in']:.0%} of it the same text")
    show("        answer tokens", counted["A out"], "the rule-based extractor's")
    show("step B: tasks", counted["tasks"])
    show("step 3: rollouts", REPEAT * counted["tasks"])
    show("        policy, prompt tokens", REPEAT * counted["3 in"], f"a third of it when {REPEAT} share their prompt")
    show("        policy, answer tokens", REPEAT * RESPONSE_TOKENS * counted["tasks"], "assumed by --estimate")
    show("        gradings, at most", graded)
    show("        grader, prompt tokens", REPEAT * counted["G in"] + RESPONSE_TOKENS * graded)
    show("        grader, answer tokens", GRADE_TOKENS * graded, "assumed by --estimate")


if __name__ == "__main__":
    main()
