# SPDX-License-Identifier: GPL-2.0
"""What the tests in the guest and on the host print, and what it means."""

import re

ANSI = re.compile(r"\x1b\[[0-9;]*m")
REACHED = re.compile(r"^# .*:reached (.*) by (\w+)$")
SKIP = re.compile(r" *# *SKIP *")
RESULT = re.compile(r"^(not )?ok\b[ \d]*(.*)$")
# khugepaged's tests say ok at the end of a subtest of which an earlier step has failed.
HIDDEN_FAILURE = re.compile(r"\b(Fail|Timeout)\b|corrupted")


# In a log, between the output of a guest that does not count and that of the next.
BOOTED_AGAIN = "#booted-again"
# So much of what a suite said before a failure is kept, in lines.
DETAIL = 40


def is_leak(text):
    """Whether a line between "#leaks" and "#leaks-end" tells of memory that was lost."""
    return "unreferenced object" in text or text.startswith("pages left:")


class Suite:
    """Results of one suite with one implementation."""

    def __init__(self, name, impl):
        self.name, self.impl = name, impl
        self.tries = 1
        self.seconds = 0
        self.begin()

    def begin(self):
        """Nothing has been seen yet."""
        self.passed = self.failed = self.skipped = 0
        self.planned = None
        self.failures = []
        self.reached = {}
        self.hidden = None
        # Each test: name, "passed", "failed" or "skipped", and what there is to say to that.
        self.cases = []
        self.said = []

    def fail(self, what):
        self.failed += 1
        self.failures.append(what)
        self.case(what, "failed", "\n".join(self.said[-DETAIL:]))

    def case(self, name, outcome, detail=""):
        """A test has ended."""
        self.cases.append((name, outcome, detail))
        self.said = []

    def line(self, text):
        """Take in a line of the suite's output."""
        text = ANSI.sub("", text)
        if text == "#again":
            self.begin()
            self.tries += 1
            return
        plan = re.match(r"^1\.\.(\d+)", text)
        result = RESULT.match(text)
        reached = REACHED.match(text)
        if reached:
            self.reached[reached.group(1)] = reached.group(2)
        if plan:
            self.planned = int(plan.group(1))
        elif text.startswith("Bail out!"):
            self.fail(text)
        elif result:
            if result.group(1):
                self.fail(result.group(2))
            elif self.hidden:
                self.fail(f"{result.group(2)}: said ok after \"{self.hidden}\"")
            elif SKIP.search(text):
                self.skipped += 1
                name, why = SKIP.split(result.group(2), maxsplit=1)
                if not name.strip():
                    # "ok # SKIP NAME (REASON)", as khugepaged has it.
                    name, why = re.fullmatch(r"(.*?)(?:\s*\((.*)\))?", why.strip()).groups("")
                self.case(name, "skipped", why)
            else:
                self.passed += 1
                self.case(result.group(2), "passed")
            self.hidden = None
        else:
            self.said.append(text)
            if HIDDEN_FAILURE.search(text):
                self.hidden = text.strip()

    def end(self, status):
        """The suite has ended with this exit status."""
        seen = self.passed + self.failed + self.skipped
        if self.hidden:
            self.fail(self.hidden)
        elif status == 4 and not self.failed:
            # KSFT_SKIP for the rest, or for all of it.
            if not seen:
                self.skipped += 1
                self.case("all", "skipped", "\n".join(self.said[-1:]))
        elif status and not self.failed:
            self.fail(f"exited with status {status}" + (", which is its time limit" if status == 124 else ""))
        elif not seen:
            # Not every suite speaks KTAP: its exit status is its result.
            self.passed += 1
            self.case("all", "passed")
        elif self.planned and seen < self.planned and not self.failed:
            self.fail(f"only {seen} of {self.planned} tests ran")


class Run:
    """What scripts/guest/tests.sh prints, or a log of that and of the suites on the host: suites, and
    memory that was lost."""

    def __init__(self):
        self.suites, self.leaks = [], []
        self.current = None
        self.in_leaks = False

    def line(self, text):
        """Take in a line."""
        words = text.split()
        if text.startswith("#suite "):
            # A guest may have died in the middle of one.
            self.ended()
            self.current = Suite(words[1], words[2])
            self.suites.append(self.current)
        elif text == BOOTED_AGAIN:
            # What the guest before has said does not count.
            self.suites, self.leaks, self.current = [suite for suite in self.suites if suite.impl == "host"], [], None
            self.in_leaks = False
        elif text.startswith("#end ") and self.current:
            self.current.end(int(words[3]))
            self.current = None
        elif text.startswith("#leaks"):
            self.in_leaks = text == "#leaks"
        elif self.in_leaks and is_leak(text):
            self.leaks.append(text)
        elif self.current:
            self.current.line(text)

    def ended(self):
        """There is no more output: a suite that has not ended never will."""
        if self.current:
            self.current.end(1)
