"""Docs check: every relative link leads somewhere, and every page is reachable from the README."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def links(page: Path) -> set[Path]:
    """The files of this repository that a page links to."""
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    return {(page.parent / target).resolve() for target in targets if "://" not in target}


def main() -> int:
    seen, waiting = set(), {ROOT / "README.md"}
    broken = []
    while waiting:
        page = waiting.pop()
        seen.add(page)
        for target in links(page):
            if not target.exists():
                broken.append(f"{page.relative_to(ROOT)}: no {target.relative_to(ROOT)}")
            elif target.suffix == ".md" and target not in seen:
                waiting.add(target)
    lost = sorted(set((ROOT / "docs").rglob("*.md")) - seen)
    problems = broken + [f"{page.relative_to(ROOT)}: no link leads here from README.md" for page in lost]
    sys.stdout.write(
        "\n".join(problems) + "\n" if problems else f"docs: {len(seen)} pages, all links lead somewhere\n"
    )
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
