"""The process of its own: register two files and write the transform. Each line of stdout is one report as JSON.

python worker.py FIXED MOVING TRANSFORM SETTINGS
"""

import json
import sys


def main(fixed, moving, transform, settings):
    """Register two images, with settings of `corereg.register` as JSON."""
    import corereg

    print(json.dumps({"text": "reading", "share": 0.0}), flush=True)
    result = corereg.register(fixed, moving, progress=report, **json.loads(settings))
    result.transform.save(transform)
    print(json.dumps({"text": "done", "share": 1.0}), flush=True)


def report(text):
    """Print where the registration is: a text, and the share of the stage that is done if it counts its steps."""
    done, total = getattr(text, "done", 0), getattr(text, "total", 0)
    print(json.dumps({"text": str(text), "share": done / total if total else None}), flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        sys.exit(" ".join(str(error).split()) or type(error).__name__)
