// SPDX-License-Identifier: GPL-2.0
/* What the benchmarks of collapse_file() share. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "collapse_bench_util.h"
#include "collapse_file_util.h"

const char * const impls[NR_IMPLS] = { "c", "rust" };
pid_t main_pid;

void die(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fputs("error: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	if (main_pid && getpid() != main_pid)
		kill(main_pid, SIGKILL);
	exit(1);
}

void set(const char *path, const char *text)
{
	int err = write_text(path, text);

	if (err)
		die("%s: %s", path, strerror(err));
}

long now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

void run_on(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		die("cannot run on CPU %d; use a machine with two CPUs", cpu);
}

void use(const char *impl)
{
	if (!choose_implementation(impl))
		die("cannot select an implementation; run as root");
}
