"""`python -m harness.audit LOCK`: known faults of the locked packages, asked of the OSV database (osv.dev)."""

import json
import re
import sys
import urllib.request
from pathlib import Path
from typing import Any

URL = "https://api.osv.dev/v1/querybatch"
SECONDS = 30


def locked(text: str) -> list[tuple[str, str]]:
    """(name, version) of every line NAME==VERSION of a requirements file."""
    return re.findall(r"^([A-Za-z0-9._-]+)==([^\s;+]+)", text, re.MULTILINE)


def known_faults(packages: list[tuple[str, str]]) -> dict[str, list[str]]:
    """{"NAME VERSION": ids of its known faults}, of those that have any. Raises OSError without a network."""
    queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in packages]
    body = json.dumps({"queries": queries}).encode()
    request = urllib.request.Request(URL, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        results: list[dict[str, Any]] = json.load(answer)["results"]
    return {
        f"{name} {version}": [fault["id"] for fault in result["vulns"]]
        for (name, version), result in zip(packages, results, strict=True)
        if result.get("vulns")
    }


def main(lock: Path) -> int:
    """Print what is known; returns 1 if there is a fault, 0 if there is none or nobody could be asked."""
    packages = locked(lock.read_text(encoding="utf-8"))
    try:
        found = known_faults(packages)
    except (OSError, ValueError, KeyError) as error:
        print(f"audit: not run ({error})")
        return 0
    for package, faults in found.items():
        print(f"{package}: {', '.join(faults)}")
    print(f"audit: {len(packages)} packages of {lock}, {len(found)} with known faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
