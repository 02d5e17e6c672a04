# SPDX-License-Identifier: GPL-2.0
#
# Front door of the project; `make help` lists what there is. The work is done by
# the scripts in scripts/. This is not the kernel's build system: files for the
# kernel are copied into build/linux and built there.

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
# An architecture whose guests cannot use this machine's file system, and what can be made with it.
FOREIGN := $(filter-out x86_64,$(ARCH))
FOREIGN_GOALS := help setup source kernel kernel-debug run test shell vng

# The kernel that tests run in, by what it is to find, and the CPUs of its guest.
DEBUG ?= lockdep
KERNEL_DEBUG = $(if $(filter lockdep,$(DEBUG)),debug,$(DEBUG))
CPUS := $(if $(filter up,$(DEBUG)),1,2)

CASES ?= 2000

# What the scripts read from the environment, where given.
export ACCEL MEM ARCH
export $(foreach v,KSRC JOBS CACHE LLVM RUSTC BINDGEN,$(if $(filter-out undefined,$(origin $(v))),$(v)))
export VNG = $(shell . scripts/lib.sh && echo "$$VNG")

.DEFAULT_GOAL := help

.PHONY: help setup source kernel kernel-debug run test test-all fuzz clients coverage mutants-vm mutants-host host-test litmus bench bench-locks bench-contention profile shell gdb vng job apply report results patches patches-check port-check rustdoc lint clean

help:
	@echo 'collapse_file() of Linux in Rust'
	@echo
	@echo '  make run       build the fast kernel, boot it and run the demo'
	@echo '  make test      build the debug kernel and run all tests in it, with Rust and with C'
	@echo '  make test DEBUG=kasan|kcsan|two-cpus|up    the tests that run in a guest, with another debug'
	@echo '                 kernel: KASAN, KCSAN, NR_CPUS=2, or without SMP'
	@echo '  make fuzz CASES=N SEED=N [LEDGER=1]  random histories, collapsed in C and in Rust and compared'
	@echo '  make clients [CLIENTS="NAME ..."]      Debian'"'"'s programs (QEMU, fio, SQLite, LMDB, PostgreSQL, stress-ng,'
	@echo '                 Python, a compiler) while their memory and files are collapsed'
	@echo '  make coverage  which lines of the Rust code the tests cover'
	@echo '  make mutants-vm [MUTANTS="NAME ..."]   which mistakes the tests would find (an hour or two)'
	@echo '  make mutants-host [MUTANTS="NAME ..."]    the same for the tests on the host (some minutes)'
	@echo '  make host-test [LONG=1]        the Rust sources on the host, interleaved with other tasks'
	@echo '  make litmus    the order of memory accesses, by herd7 and the kernel'"'"'s memory model'
	@echo '  make test-all [LIST=1] [PARTS="NAME ..."]    all of these and the benchmarks, which takes a day;'
	@echo '                 parts that passed on this commit are left out; LIST=1 prints the parts'
	@echo '  make bench [ROUNDS=N] [SCENARIOS="NAME ..."]   what a collapse costs in C and in Rust'
	@echo '  make bench-locks [...]         how often they take locks, and keep interrupts off'
	@echo '  make bench-contention [TRIES=N] [TRACE=1] [MODES="NAME ..."]    how often a collapse succeeds'
	@echo '                 while another thread uses the range; MODES=wait-i-mmap has its file mapped'
	@echo '                 by 256 processes, and tells how long fork() and mmap() of it wait'
	@echo '  make profile [SCENARIOS=NAMES] instructions of a collapse by function, atomic instructions, locks'
	@echo '  make shell     a shell in the fast kernel'
	@echo '  make shell GDB=1, and in another terminal make gdb    the same, to step through a collapse'
	@echo '  make vng       the command that `make shell` boots with, for your own flow'
	@echo '  make job ROOTFS=URL [URL=URL]  the suites as a LAVA job, and the tuxrun command for it'
	@echo '  make kernel    build the fast kernel only'
	@echo '  make apply     the series on a copy of the kernel tree KSRC: a branch of commits if it'
	@echo '                 is a git tree (DEST=build/applied)'
	@echo '  make patches [REROLL=N]        the series as it is mailed, in build/patches'
	@echo '  make patches-check [BUILDS=no] apply it a patch at a time to a pristine tree, and build each step'
	@echo '  make port-check KSRC=DIR       which hunks do not fit a kernel tree of another version'
	@echo '  make report    build/results once more as a page (index.html) and JUnit XML; the tests do so, too'
	@echo '  make results   docs/results.md from build/results'
	@echo '  make rustdoc   the documentation of the kernel crate, which has to come without a warning'
	@echo '  make lint      rustfmt, clippy, checkpatch, shellcheck'
	@echo '  make setup     install the tools only'
	@echo '  make clean     remove build/ (the cache stays)'
	@echo
	@echo 'Options:'
	@echo '  KSRC=DIR              a Linux 7.3.y tree to use instead of Debian'"'"'s; it is copied'
	@echo '  ACCEL=auto|kvm|tcg    how to run guests; auto tries KVM and falls back to emulation'
	@echo '  IMPL=rust|c           implementation that `make shell` begins with; with `make test`'
	@echo '                        and this on the command line, the only one tested'
	@echo '  SUITES="NAME ..."     with `make test`: these suites only'
	@echo '  ARCH=arm64            with run, test, shell and vng: a guest of that, emulated'
	@echo '  JOBS=N                compilers at a time (all cores)'
	@echo '  MEM=SIZE              memory of a guest (2G)'
	@echo '  CACHE=DIR             downloads, tools and ccache ($${XDG_CACHE_HOME:-~/.cache}/rust-collapse-file)'
	@echo '  LLVM=-22 RUSTC=PATH BINDGEN=PATH    other tools than the ones installed'

setup:
	@scripts/setup.sh

source: setup
	@scripts/prepare-source.sh

kernel: check-options source
	@scripts/build-kernel.sh fast

kernel-debug: check-options source
	@scripts/build-kernel.sh debug

run: check-options kernel
	@scripts/build-userspace.sh
	@scripts/vm.py --kernel $(call image,fast) --accel $(ACCEL) --memory $(MEM) --disks $(BUILD)/disks \
		--console $(BUILD)/logs/demo-console.log -- $(if $(FOREIGN),/opt/collapse_file,$(CURDIR))/scripts/guest/demo.sh

test: check-options source
	@scripts/build-kernel.sh $(KERNEL_DEBUG)
	@scripts/build-userspace.sh tests
	@scripts/run-tests.py --kernel $(call image,$(KERNEL_DEBUG)) \
		--accel $(ACCEL) --memory $(MEM) --cpus $(CPUS) $(if $(filter-out lockdep,$(DEBUG))$(FOREIGN),--name $(subst $() $(),-,$(strip test $(filter-out lockdep,$(DEBUG)) $(FOREIGN))) --guest-only) \
		$(if $(IMPL_GIVEN),--impl $(IMPL_GIVEN)) $(SUITES)

fuzz: check-options source
	@scripts/build-kernel.sh fuzz
	@scripts/build-userspace.sh tests
	@scripts/fuzz.py --kernel $(call image,fuzz) --accel $(ACCEL) --memory $(MEM) --cases $(CASES) \
		$(if $(SEED),--seed $(SEED)) $(if $(filter 1,$(LEDGER)),--ledger)

clients: check-options kernel
	@scripts/setup.sh clients
	@scripts/clients.py --kernel $(call image,fast) --accel $(ACCEL) --memory $(MEM) \
		$(if $(IMPL_GIVEN),--impl $(IMPL_GIVEN)) $(CLIENTS)

coverage: check-options source
	@scripts/build-kernel.sh coverage
	@scripts/build-userspace.sh tests
	@scripts/coverage.py --kernel $(BUILD)/linux/build-coverage --accel $(ACCEL) --memory $(MEM)

mutants-vm: check-options source
	@scripts/build-userspace.sh tests
	@scripts/mutants-vm.py --accel $(ACCEL) --memory $(MEM) $(MUTANTS)

host-test: source
	@LONG=$(LONG) scripts/host-test.py

litmus: source
	@scripts/litmus.py

mutants-host: source
	@scripts/setup.sh mutants
	@. scripts/lib.sh && CARGO_MUTANTS="$$CARGO_MUTANTS" scripts/mutants-host.py $(MUTANTS)

test-all:
	@scripts/test-all.py $(if $(filter 1,$(LIST)),--list) $(PARTS)

bench: check-options kernel
	@scripts/setup.sh plot
	@scripts/build-userspace.sh tests
	@scripts/build-kernel.sh one-by-one
	@scripts/bench.py --kernel $(call image,fast) --one-by-one $(call image,one-by-one) \
		--accel $(ACCEL) --memory $(MEM) $(if $(ROUNDS),--rounds $(ROUNDS)) $(SCENARIOS)
	@$(if $(SCENARIOS),:,. scripts/lib.sh && "$$PLOT_PYTHON" scripts/plot-bench.py $(BUILD)/results/bench.json $(BUILD)/results/bench.svg)

bench-locks: check-options source
	@scripts/build-kernel.sh bench-locks
	@scripts/build-userspace.sh tests
	@scripts/bench.py --kernel $(call image,bench-locks) --accel $(ACCEL) --memory $(MEM) --locks \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(SCENARIOS)

bench-contention: check-options kernel
	@scripts/build-userspace.sh tests
	@scripts/bench-contention.py --kernel $(call image,fast) --accel $(ACCEL) --memory $(MEM) \
		$(if $(TRIES),--tries $(TRIES)) $(if $(TRACE),--trace) $(MODES)

profile: check-options kernel
	@scripts/build-userspace.sh tests
	@scripts/profile.py --kernel $(call image,fast) --memory $(MEM) $(SCENARIOS)

# Where the shell's guest listens for gdb, and the kernel that tells it most.
GDB_SOCKET := $(BUILD)/gdb.sock
SHELL_KERNEL := $(if $(filter 1,$(GDB)),gdb,fast)

shell: check-options source
	@scripts/build-kernel.sh $(SHELL_KERNEL)
	@scripts/build-userspace.sh tests
	@scripts/vm.py --kernel $(call image,$(SHELL_KERNEL)) --accel $(ACCEL) --memory $(MEM) \
		--disks $(BUILD)/disks-shell --append thp_collapse_file=$(IMPL) $(if $(filter 1,$(GDB)),--gdb $(GDB_SOCKET) --append nokaslr)

gdb:
	@scripts/gdb.sh $(BUILD)/linux/build-gdb $(GDB_SOCKET)

vng:
	@scripts/vm.py --kernel $(call image,fast) --accel $(ACCEL) --memory $(MEM) --append thp_collapse_file=$(IMPL) --show

job: check-options source
	@scripts/build-kernel.sh lab
	@scripts/build-userspace.sh tests
	@scripts/job.py --kernel $(call image,lab) --rootfs '$(ROOTFS)' $(if $(URL),--url '$(URL)') $(SUITES)

apply:
	@scripts/apply.sh "$(KSRC)" "$(DEST)"

patches: source
	@REROLL=$(REROLL) scripts/patches.sh

patches-check: patches
	@BUILDS='$(BUILDS)' scripts/patches-check.sh

port-check:
	@scripts/port-check.sh "$(KSRC)"

report:
	@scripts/report.py

results:
	@scripts/results-page.py

rustdoc: check-options kernel
	@scripts/build-kernel.sh fast rustdoc
	@if grep -A4 '^warning' $(BUILD)/logs/kernel-fast.log; then echo 'error: rustdoc warns, see above' >&2; exit 1; fi
	@echo '==> $(BUILD)/linux/build-fast/Documentation/output/rust/rustdoc/kernel/mm/index.html'

lint: kernel-debug
	@scripts/lint.sh

.PHONY: check-options
check-options:
	@case '$(ARCH)' in x86_64|arm64) ;; *) echo 'error: ARCH=$(ARCH) is neither x86_64 nor arm64' >&2; exit 2;; esac
	@case '$(if $(FOREIGN),$(filter-out $(FOREIGN_GOALS),$(MAKECMDGOALS)))' in '') ;; *) \
		echo 'error: with ARCH=$(ARCH) there is $(FOREIGN_GOALS), and nothing else' >&2; exit 2;; esac
	@case '$(IMPL)' in rust|c) ;; *) echo 'error: IMPL=$(IMPL) is neither rust nor c' >&2; exit 2;; esac
	@case '$(DEBUG)' in lockdep|kasan|kcsan|two-cpus|up) ;; *) \
		echo 'error: DEBUG=$(DEBUG) is not one of lockdep, kasan, kcsan, two-cpus, up' >&2; exit 2;; esac
	@case '$(ROUNDS)' in *[!0-9]* | 0) echo 'error: ROUNDS=$(ROUNDS) is no number of rounds' >&2; exit 2;; esac
	@case '$(TRIES)' in *[!0-9]* | 0) echo 'error: TRIES=$(TRIES) is no number of tries' >&2; exit 2;; esac
	@case '$(TRACE)' in '' | 1) ;; *) echo 'error: TRACE=$(TRACE) is not 1' >&2; exit 2;; esac
	@case '$(CASES)$(SEED)' in *[!0-9]*) echo 'error: CASES=$(CASES) is no number, or SEED=$(SEED)' >&2; exit 2;; esac
	@case '$(LEDGER)' in '' | 1) ;; *) echo 'error: LEDGER=$(LEDGER) is not 1' >&2; exit 2;; esac
	@case '$(GDB)' in '' | 1) ;; *) echo 'error: GDB=$(GDB) is not 1' >&2; exit 2;; esac
	@case '$(ROOTFS):$(filter job,$(MAKECMDGOALS))' in :job) echo 'error: which root file system? make job ROOTFS=URL:' \
		'an ext4 image with bash, python3, util-linux, e2fsprogs and xfsprogs' >&2; exit 2;; esac
	@case '$(ACCEL)' in auto|kvm|tcg) ;; *) echo 'error: ACCEL=$(ACCEL) is not one of auto, kvm, tcg' >&2; exit 2;; esac

clean:
	rm -rf $(BUILD)
