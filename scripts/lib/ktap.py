# SPDX-License-Identifier: GPL-2.0
"""Parses the output of the tests in the guest and on the host."""

import re

ANSI = re.compile(r"\x1b\[[0-9;]*m")
REACHED = re.compile(r"^# .*:reached (.*) by (\w+)$")
SKIP = re.compile(r" *# *SKIP *")
RESULT = re.compile(r"^(not )?ok\b[ \d]*(.*)$")
# khugepaged's tests print ok at the end of a subtest even if one of its steps has failed.
HIDDEN_FAILURE = re.compile(r"\b(Fail|Timeout)\b|corrupted")


# A log has this line between the output of a guest that does not count and that of the next guest.
BOOTED_AGAIN = "#booted-again"
# The number of lines before a failure that are kept.
DETAIL = 40


def is_leak(text):
    """Returns whether a line between "#leaks" and "#leaks-end" reports leaked memory."""
    return "unreferenced object" in text or text.startswith("pages left:")


class Suite:
    """The results of one suite with one implementation."""

    def __init__(self, name, impl):
        self.name, self.impl = name, impl
        self.tries = 1
        self.seconds = 0
        self.begin()

    def begin(self):
        """Clears the results."""
        self.passed = self.failed = self.skipped = 0
        self.planned = None
        self.failures = []
        self.reached = {}
        self.hidden = None
        # For each test: its name, "passed", "failed" or "skipped", and details.
        self.cases = []
        self.said = []

    def fail(self, what):
        self.failed += 1
        self.failures.append(what)
        self.case(what, "failed", "\n".join(self.said[-DETAIL:]))

    def case(self, name, outcome, detail=""):
        """Records the outcome of a test."""
        self.cases.append((name, outcome, detail))
        self.said = []

    def line(self, text):
        """Parses one line of the suite's output."""
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
                self.fail(f"{result.group(2)}: printed ok after \"{self.hidden}\"")
            elif SKIP.search(text):
                self.skipped += 1
                name, why = SKIP.split(result.group(2), maxsplit=1)
                if not name.strip():
                    # khugepaged prints "ok # SKIP NAME (REASON)".
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
        """Records the exit status of the suite."""
        seen = self.passed + self.failed + self.skipped
        if self.hidden:
            self.fail(self.hidden)
        elif status == 4 and not self.failed:
            # KSFT_SKIP: the suite skipped its remaining tests, or all of them.
            if not seen:
                self.skipped += 1
                self.case("all", "skipped", "\n".join(self.said[-1:]))
        elif status and not self.failed:
            self.fail(f"exited with status {status}" + (", which is its time limit" if status == 124 else ""))
        elif not seen:
            # The suite does not print KTAP, so its exit status is its result.
            self.passed += 1
            self.case("all", "passed")
        elif self.planned and seen < self.planned and not self.failed:
            self.fail(f"only {seen} of {self.planned} tests ran")


class Run:
    """The suites and leaks in the output of scripts/guest/tests.sh, or in a log of a whole run."""

    def __init__(self):
        self.suites, self.leaks = [], []
        self.current = None
        self.in_leaks = False

    def line(self, text):
        """Parses one line."""
        words = text.split()
        if text.startswith("#suite "):
            # A guest may have died in the middle of a suite.
            self.ended()
            self.current = Suite(words[1], words[2])
            self.suites.append(self.current)
        elif text == BOOTED_AGAIN:
            # The output of the previous guest does not count.
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
        """Ends the current suite as failed, because there is no more output."""
        if self.current:
            self.current.end(1)
