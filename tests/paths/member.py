"""One process of several that do one job after the other, so that torch is imported once and not for every test.

Reads a JSON line {"function", "arguments", "environment"} from standard input, runs that function of `jobs`, and answers
with a JSON line {"code", "value", "words"} on standard output.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import jobs

from striate.errors import StriateError

if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a job prints is not an answer
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        os.environ |= job["environment"]
        answer = {"code": 0, "value": None, "words": ""}
        try:
            answer["value"] = getattr(jobs, job["function"])(**job["arguments"])
        except StriateError as error:
            answer |= {"code": error.exit_code, "words": str(error)}
        except Exception:
            answer |= {"code": 1, "words": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)
