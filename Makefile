# SPDX-License-Identifier: GPL-2.0
#
# `make help` lists the targets. They call scripts in scripts/, which CONTRIBUTING.md lists. This is
# not the kernel's build system: files for the kernel are copied into build/linux and built there.

SHELL := /bin/bash
MAKEFLAGS += --no-print-directory --no-builtin-rules
.SUFFIXES:

ACCEL ?= auto
IMPL_GIVEN := $(IMPL)
IMPL ?= rust
MEM ?= 2G
DEST ?= build/applied

BUILD := build
ARCH ?= x86_64
image_x86_64 = $(BUILD)/linux/build-$(1)/arch/x86/boot/bzImage
image_arm64 = $(BUILD)/linux/build-$(1)-arm64/arch/arm64/boot/Image
image = $(image_$(ARCH))
# Guests of a foreign architecture cannot use this machine's file system. FOREIGN_GOALS are the
# targets that support one.
FOREIGN := $(filter-out x86_64,$(ARCH))
FOREIGN_GOALS := help setup source kernel kernel-debug run test shell vng

# The debug kernel for the tests, and the number of CPUs of its guest.
DEBUG ?= lockdep
KERNEL_DEBUG = $(if $(filter lockdep,$(DEBUG)),debug,$(DEBUG))
CPUS := $(if $(filter up,$(DEBUG)),1,2)

CASES ?= 2000

# The scripts read these variables from the environment.
export ACCEL MEM ARCH
export $(foreach v,KSRC JOBS CACHE LLVM RUSTC BINDGEN SERIES,$(if $(filter-out undefined,$(origin $(v))),$(v)))
export VNG = $(shell . scripts/lib/lib.sh && echo "$$VNG")

.DEFAULT_GOAL := help

.PHONY: help setup source kernel kernel-debug run test test-all fuzz clients coverage mutants-vm mutants-host host-test litmus bench bench-locks bench-contention profile shell gdb vng job apply report results patches patches-check port-check rustdoc htmldocs lint clean

help:
	@echo 'collapse_file() of Linux in Rust'
	@echo
	@echo '  make run       build the fast kernel, boot it and run the demo'
	@echo '  make test      build the debug kernel and run all tests, with Rust and with C'
	@echo '  make test DEBUG=kasan|kcsan|two-cpus|up    run the tests in a guest with another debug'
	@echo '                 kernel: KASAN, KCSAN, NR_CPUS=2, or without SMP'
	@echo '  make fuzz CASES=N SEED=N [LEDGER=1]  compare C and Rust on random histories'
	@echo '  make clients [CLIENTS="NAME ..."]      run Debian'"'"'s programs (QEMU, fio, SQLite, LMDB, PostgreSQL,'
	@echo '                 stress-ng, Python, a compiler) while their memory and files are collapsed'
	@echo '  make coverage  list the lines of the Rust code that the tests do not cover'
	@echo '  make mutants-vm [MUTANTS="NAME ..."]   check that the tests in a guest catch mutations (hours)'
	@echo '  make mutants-host [MUTANTS="NAME ..."]    the same for the tests on the host (some minutes)'
	@echo '  make host-test [LONG=1]        explore interleavings of the Rust sources on the host'
	@echo '  make litmus    check the memory ordering with herd7 and the kernel'"'"'s memory model'
	@echo '  make test-all [LIST=1] [PARTS="NAME ..."]    run all tests, checks and benchmarks (a day), except'
	@echo '                 parts that passed with the same sources; LIST=1 prints the parts'
	@echo '  make bench [ROUNDS=N] [SCENARIOS="NAME ..."]   measure the cost of a collapse in C and in Rust'
	@echo '  make bench-locks [...]         count lock acquisitions, and measure the time with interrupts off'
	@echo '  make bench-contention [TRIES=N] [TRACE=1] [MODES="NAME ..."]    measure how often a collapse'
	@echo '                 succeeds while another thread uses the range; with MODES=wait-i-mmap, 256'
	@echo '                 processes map the file, and the waits of fork() and mmap() are measured'
	@echo '  make profile [SCENARIOS=NAMES] count instructions of a collapse by function, atomics and locks'
	@echo '  make shell     start a shell in the fast kernel'
	@echo '  make shell GDB=1, and in another terminal make gdb    the same, to step through a collapse'
	@echo '  make vng       print the virtme-ng command of `make shell`'
	@echo '  make job ROOTFS=URL [URL=URL]  write a LAVA job for the suites, and print the tuxrun command'
	@echo '  make kernel    build the fast kernel only'
	@echo '  make apply     apply the series to a copy of the kernel tree KSRC, as a branch if it is a'
	@echo '                 git tree (DEST=build/applied)'
	@echo '  make patches [SERIES=fixes|rfc|extras] [REROLL=N]    write the series, or a part of it, to'
	@echo '                 build/patches, ready to be mailed'
	@echo '  make patches-check [SERIES=...] [BUILDS=no]    apply it patch by patch to a pristine tree, and'
	@echo '                 build each step'
	@echo '  make port-check KSRC=DIR [SERIES=fixes]    list the hunks that do not fit a kernel tree of another'
	@echo '                 version; SERIES=fixes checks the fixes of C only, and works with apply, too'
	@echo '  make report    write build/results as HTML and JUnit XML (`make test` does this too)'
	@echo '  make results   write docs/results.md from build/results'
	@echo '  make rustdoc   build the documentation of the kernel crate, with warnings as errors'
	@echo '  make htmldocs  the documents of the kernel tree by Sphinx, without a warning'
	@echo '  make lint      run rustfmt, clippy, checkpatch and shellcheck'
	@echo '  make setup     install the tools only'
	@echo '  make clean     remove build/ (the cache stays)'
	@echo
	@echo 'Options:'
	@echo '  KSRC=DIR              a Linux 7.3.y tree to copy and use instead of Debian'"'"'s'
	@echo '  ACCEL=auto|kvm|tcg    how to run guests; auto tries KVM and falls back to emulation'
	@echo '  IMPL=rust|c           the implementation that `make shell` starts with; if given for'
	@echo '                        `make test`, only this one is tested'
	@echo '  SUITES="NAME ..."     with `make test`: run only these suites'
	@echo '  ARCH=arm64            with run, test, shell and vng: emulate an arm64 guest'
	@echo '  JOBS=N                number of parallel compilers (all cores)'
	@echo '  MEM=SIZE              memory of a guest (2G)'
	@echo '  CACHE=DIR             downloads, tools and ccache ($${XDG_CACHE_HOME:-~/.cache}/rust-collapse-file)'
	@echo '  LLVM=-22 RUSTC=PATH BINDGEN=PATH    use these tools instead of the installed ones'

setup:
	@scripts/build/setup.sh

source: setup
	@scripts/build/prepare-source.sh

kernel: check-options source
	@scripts/build/build-kernel.sh fast

kernel-debug: check-options source
	@scripts/build/build-kernel.sh debug

run: check-options kernel
	@scripts/build/build-userspace.sh
	@scripts/lib/vm.py --kernel $(call image,fast) --accel $(ACCEL) --memory $(MEM) --disks $(BUILD)/disks \
		--console $(BUILD)/logs/demo-console.log -- $(if $(FOREIGN),/opt/collapse_file,$(CURDIR))/scripts/guest/demo.sh

test: check-options source
	@scripts/build/build-kernel.sh $(KERNEL_DEBUG)
	@scripts/build/build-userspace.sh tests
	@scripts/tests/run-tests.py --kernel $(call image,$(KERNEL_DEBUG)) \
		--accel $(ACCEL) --memory $(MEM) --cpus $(CPUS) $(if $(filter-out lockdep,$(DEBUG))$(FOREIGN),--name $(subst $() $(),-,$(strip test $(filter-out lockdep,$(DEBUG)) $(FOREIGN))) --guest-only) \
		$(if $(IMPL_GIVEN),--impl $(IMPL_GIVEN)) $(SUITES)

fuzz: check-options source
	@scripts/build/build-kernel.sh fuzz
	@scripts/build/build-userspace.sh tests
	@scripts/tests/fuzz.py --kernel $(call image,fuzz) --accel $(ACCEL) --memory $(MEM) --cases $(CASES) \
		$(if $(SEED),--seed $(SEED)) $(if $(filter 1,$(LEDGER)),--ledger)

clients: check-options kernel
	@scripts/build/setup.sh clients
	@scripts/build/build-userspace.sh
	@scripts/tests/clients.py --kernel $(call image,fast) --accel $(ACCEL) --memory $(MEM) \
		$(if $(IMPL_GIVEN),--impl $(IMPL_GIVEN)) $(CLIENTS)

coverage: check-options source
	@scripts/build/build-kernel.sh coverage
	@scripts/build/build-userspace.sh tests
	@scripts/tests/coverage.py --kernel $(BUILD)/linux/build-coverage --accel $(ACCEL) --memory $(MEM)

mutants-vm: check-options source
	@scripts/build/build-userspace.sh tests
	@scripts/mutants/mutants-vm.py --accel $(ACCEL) --memory $(MEM) $(MUTANTS)

host-test: source
	@LONG=$(LONG) scripts/tests/host-test.py

litmus: source
	@scripts/tests/litmus.py

mutants-host: source
	@scripts/build/setup.sh mutants
	@. scripts/lib/lib.sh && CARGO_MUTANTS="$$CARGO_MUTANTS" scripts/mutants/mutants-host.py $(MUTANTS)

test-all:
	@scripts/tests/test-all.py $(if $(filter 1,$(LIST)),--list) $(PARTS)

bench: check-options kernel
	@scripts/build/setup.sh plot
	@scripts/build/build-userspace.sh tests
	@scripts/build/build-kernel.sh one-by-one
	@scripts/bench/bench.py --kernel $(call image,fast) --one-by-one $(call image,one-by-one) \
		--accel $(ACCEL) --memory $(MEM) $(if $(ROUNDS),--rounds $(ROUNDS)) $(SCENARIOS)
	@$(if $(SCENARIOS),:,. scripts/lib/lib.sh && "$$PLOT_PYTHON" scripts/bench/plot-bench.py $(BUILD)/results/bench.json $(BUILD)/results/bench.svg)

bench-locks: check-options source
	@scripts/build/build-kernel.sh bench-locks
	@scripts/build/build-userspace.sh tests
	@scripts/bench/bench.py --kernel $(call image,bench-locks) --accel $(ACCEL) --memory $(MEM) --locks \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(SCENARIOS)

bench-contention: check-options kernel
	@scripts/build/build-userspace.sh tests
	@scripts/bench/bench-contention.py --kernel $(call image,fast) --accel $(ACCEL) --memory $(MEM) \
		$(if $(TRIES),--tries $(TRIES)) $(if $(TRACE),--trace) $(MODES)

profile: check-options kernel
	@scripts/build/build-userspace.sh tests
	@scripts/bench/profile.py --kernel $(call image,fast) --memory $(MEM) $(SCENARIOS)

# The socket at which gdb attaches to the shell's guest, and the kernel of the shell.
GDB_SOCKET := $(BUILD)/gdb.sock
SHELL_KERNEL := $(if $(filter 1,$(GDB)),gdb,fast)

shell: check-options source
	@scripts/build/build-kernel.sh $(SHELL_KERNEL)
	@scripts/build/build-userspace.sh tests
	@scripts/lib/vm.py --kernel $(call image,$(SHELL_KERNEL)) --accel $(ACCEL) --memory $(MEM) \
		--disks $(BUILD)/disks-shell --append thp_collapse_file=$(IMPL) $(if $(filter 1,$(GDB)),--gdb $(GDB_SOCKET) --append nokaslr)

gdb:
	@scripts/guest/gdb.sh $(BUILD)/linux/build-gdb $(GDB_SOCKET)

vng:
	@scripts/lib/vm.py --kernel $(call image,fast) --accel $(ACCEL) --memory $(MEM) --append thp_collapse_file=$(IMPL) --show

job: check-options source
	@scripts/build/build-kernel.sh lab
	@scripts/build/build-userspace.sh tests
	@scripts/tests/job.py --kernel $(call image,lab) --rootfs '$(ROOTFS)' $(if $(URL),--url '$(URL)') $(SUITES)

apply:
	@scripts/series/apply.sh "$(KSRC)" "$(DEST)"

patches: source
	@REROLL=$(REROLL) scripts/series/patches.sh

patches-check: patches
	@BUILDS='$(BUILDS)' scripts/series/patches-check.sh

port-check:
	@scripts/series/port-check.sh "$(KSRC)"

report:
	@scripts/tests/report.py

results:
	@scripts/tests/results-page.py

rustdoc: check-options kernel
	@scripts/build/build-kernel.sh fast rustdoc
	@if grep -A4 '^warning' $(BUILD)/logs/kernel-fast.log; then echo 'error: rustdoc printed warnings (see above); fix them' >&2; exit 1; fi
	@echo '==> $(BUILD)/linux/build-fast/Documentation/output/rust/rustdoc/kernel/mm/index.html'

htmldocs: source
	@scripts/build/setup.sh docs
	@scripts/build/htmldocs.sh

lint: kernel-debug
	@scripts/lint/lint.sh

.PHONY: check-options
check-options:
	@case '$(ARCH)' in x86_64|arm64) ;; *) echo 'error: unknown architecture (ARCH=$(ARCH)); choose from x86_64, arm64' >&2; exit 2;; esac
	@case '$(if $(FOREIGN),$(filter-out $(FOREIGN_GOALS),$(MAKECMDGOALS)))' in '') ;; *) \
		echo 'error: unsupported target for ARCH=$(ARCH) ($(MAKECMDGOALS)); choose from $(FOREIGN_GOALS)' >&2; exit 2;; esac
	@case '$(IMPL)' in rust|c) ;; *) echo 'error: unknown implementation (IMPL=$(IMPL)); choose from rust, c' >&2; exit 2;; esac
	@case '$(DEBUG)' in lockdep|kasan|kcsan|two-cpus|up) ;; *) \
		echo 'error: unknown debug kernel (DEBUG=$(DEBUG)); choose from lockdep, kasan, kcsan, two-cpus, up' >&2; exit 2;; esac
	@case '$(ROUNDS)' in *[!0-9]* | 0) echo 'error: not a positive number (ROUNDS=$(ROUNDS)); set ROUNDS to a number of rounds' >&2; exit 2;; esac
	@case '$(TRIES)' in *[!0-9]* | 0) echo 'error: not a positive number (TRIES=$(TRIES)); set TRIES to a number of tries' >&2; exit 2;; esac
	@case '$(TRACE)' in '' | 1) ;; *) echo 'error: wrong value (TRACE=$(TRACE)); set TRACE=1 or leave it out' >&2; exit 2;; esac
	@case '$(CASES)$(SEED)' in *[!0-9]*) echo 'error: not a number (CASES=$(CASES), SEED=$(SEED)); set both to numbers' >&2; exit 2;; esac
	@case '$(LEDGER)' in '' | 1) ;; *) echo 'error: wrong value (LEDGER=$(LEDGER)); set LEDGER=1 or leave it out' >&2; exit 2;; esac
	@case '$(GDB)' in '' | 1) ;; *) echo 'error: wrong value (GDB=$(GDB)); set GDB=1 or leave it out' >&2; exit 2;; esac
	@case '$(ROOTFS):$(filter job,$(MAKECMDGOALS))' in :job) echo 'error: ROOTFS is empty; run make job ROOTFS=URL with' \
		'an ext4 image that has bash, python3, util-linux, e2fsprogs and xfsprogs' >&2; exit 2;; esac
	@case '$(ACCEL)' in auto|kvm|tcg) ;; *) echo 'error: unknown accelerator (ACCEL=$(ACCEL)); choose from auto, kvm, tcg' >&2; exit 2;; esac

clean:
	rm -rf $(BUILD)
