"""Keeps a finished run here: its records, measurements packed, without the paths of the machine.

    python experiments/results/keep.py OUT experiments/results/NAME [DATA_DIR]

Then `report experiments/results/NAME --out experiments/results/NAME/report.html` makes its page.
"""

import gzip
import json
import shutil
import sys
from pathlib import Path

out, kept = Path(sys.argv[1]), Path(sys.argv[2])
names = {str(out): "OUT", str(out.resolve()): "OUT"}
if len(sys.argv) > 3:
    names |= {sys.argv[3]: "DATA", str(Path(sys.argv[3]).resolve()): "DATA"}


def rename(text):
    for path in sorted(names, key=len, reverse=True):
        text = text.replace(path, names[path])
    return text


kept.mkdir(parents=True)
(kept / "config.toml").write_text(rename((out / "config.toml").read_text()))
record = json.loads(rename((out / "experiment.json").read_text()))
# It was of the paths too.
record.pop("checksum", None)
for command in [record, *record.get("continued", [])]:
    command["command_line"][0] = Path(command["command_line"][0]).name
(kept / "experiment.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
shutil.copy(out / "summary.json", kept)
summary = json.loads((out / "summary.json").read_text())
for trial in summary["trials"] + summary["tuning"]:
    source, folder = out / "trials" / trial["id"], kept / "trials" / trial["id"]
    folder.mkdir(parents=True)
    shutil.copy(source / "trial.json", folder)
    # No name and no time in the head: the same bytes for the same measurements.
    with gzip.GzipFile("", "wb", 9, open(folder / "metrics.jsonl.gz", "wb"), mtime=0) as packed:
        packed.write((source / "metrics.jsonl").read_bytes())
