"""Fails if a crate of this workspace depends on one that asks for a newer Rust than the crate itself does.

It covers all features and all systems, but not what only tests and benches need."""

import json
import subprocess


def number(text):
    return tuple(int(part) for part in (text.split(".") + ["0", "0"])[:3])


command = ["cargo", "metadata", "--format-version", "1", "--locked", "--all-features"]
metadata = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
packages = {package["id"]: package for package in metadata["packages"]}
edges = {
    node["id"]: [dep["pkg"] for dep in node["deps"] if any(kind["kind"] != "dev" for kind in dep["dep_kinds"])]
    for node in metadata["resolve"]["nodes"]
}
wrong = []
for member in metadata["workspace_members"]:
    own = packages[member]["rust_version"]
    seen, left = {member}, [member]
    while left:
        for other in edges[left.pop()]:
            if other not in seen:
                seen.add(other)
                left.append(other)
    needs = [packages[other] for other in seen if packages[other]["rust_version"]]
    most = max(number(package["rust_version"]) for package in needs)
    print(f"{packages[member]['name']}: Rust {own}; its {len(seen) - 1} dependencies ask for at most {'.'.join(map(str, most))}")
    wrong += [
        f"{packages[member]['name']} says Rust {own}, but {package['name']} {package['version']} asks for {package['rust_version']}"
        for package in needs
        if number(package["rust_version"]) > number(own)
    ]
if wrong:
    raise SystemExit("\n".join(wrong))
