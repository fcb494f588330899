"""git as the demo's people use it: bare repositories to push to, and clones to work in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from longshore.cli.demo.processes import DemoFailed

PUSH_TRIES = 5  # the broker may push its records at the same instant


def git(directory: Path, *arguments: str, author: str) -> str:
    """Run git in `directory` as `author`, untouched by this user's own configuration. Raises DemoFailed."""
    email = f"{author.split(maxsplit=1)[0].lower()}@example.com"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": author,
        "GIT_AUTHOR_EMAIL": email,
        "GIT_COMMITTER_NAME": author,
        "GIT_COMMITTER_EMAIL": email,
    }
    done = subprocess.run(
        ["git", *arguments], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise DemoFailed(f"git {' '.join(arguments)} failed in {directory}:\n{done.stderr.strip()}")
    return done.stdout.strip()


class Repository:
    """A bare repository and one person's clone of it."""

    def __init__(self, bare: Path, clone: Path, author: str) -> None:
        self.bare = bare
        self.clone = clone
        self._author = author

    @property
    def url(self) -> str:
        return self.bare.as_uri()

    def create(self) -> None:
        self.bare.mkdir(parents=True)
        self.git("init", "--quiet", "--bare", "--initial-branch=main", directory=self.bare)
        self.clone.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("remote", "add", "origin", self.url)

    def commit(self, message: str) -> str:
        """Commit everything and return the commit's id."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")

    def tag(self, name: str) -> None:
        self.git("tag", name)

    def push(self) -> str:
        """Push the branch and its tags, on top of what others have pushed; return the head's id."""
        for left in reversed(range(PUSH_TRIES)):
            if self.git("ls-remote", "--heads", "origin", "main"):
                self.git("pull", "--quiet", "--rebase", "origin", "main")
            try:
                self.git("push", "--quiet", "--tags", "origin", "main")
                break
            except DemoFailed:
                if not left:
                    raise
        return self.git("rev-parse", "HEAD")

    def git(self, *arguments: str, directory: Path | None = None) -> str:
        return git(directory or self.clone, *arguments, author=self._author)
