// SPDX-License-Identifier: GPL-2.0
/*
 * Measure the cost of a collapse with collapse_file() in C and in Rust. The
 * implementations take turns in one boot.
 *
 *	collapse_bench [-m WHAT] [-n ROUNDS] [-d DIR] [-c CLOCK] [SCENARIO...]
 *
 * WHAT is one of:
 *
 *	time		the time of madvise(MADV_COLLAPSE)
 *	locks		the number of page cache lock acquisitions (CONFIG_LOCK_STAT)
 *	irqs-off	the longest time with interrupts off (CONFIG_IRQSOFF_TRACER), by
 *			the trace clock CLOCK
 *	bystander	the time in which another CPU touches or reads a page of the range
 *			during a collapse
 *
 * With DIR, the scenarios use a file in that directory. Without it they use a memfd.
 *
 * The output has a line "clock STEPS TIME", which shows whether the clock counts
 * instructions. Each measurement has a line "sample SCENARIO c|rust|floor VALUE". The
 * floor is the time of the copy and the clear alone. With bystander, the lines are
 * "bystander touch|read c|rust MEDIAN P99 MAX COUNT".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "collapse_bench.h"
#include "collapse_file_util.h"

#define LOCK_STAT	"/proc/lock_stat"
#define LOCK_STAT_ON	"/proc/sys/kernel/lock_stat"
#define TRACING		"/sys/kernel/tracing/instances/collapse_bench"

#define MANY_VMAS	30000

#define SUCCESS	"pte_mapped_hugepage"

static const struct scenario scenarios[] = {
	{ .name = "mapped", .step = 1, .result = SUCCESS },
	{ .name = "mapped-by-4", .step = 1, .others = 3, .result = SUCCESS },
	{ .name = "mapped-by-64", .step = 1, .others = 63, .result = SUCCESS },
	{ .name = "not-mapped", .step = 1, .unmapped = true, .result = SUCCESS },
	{ .name = "half-holes", .step = 2, .result = SUCCESS },
	{ .name = "one-page", .step = NR_PAGES, .result = SUCCESS },
	{ .name = "half-holes-30000-vmas", .step = 2, .vmas = MANY_VMAS, .only = "irqs-off",
	  .result = SUCCESS },
	{ .name = "order-4", .step = 1, .order = 4, .result = SUCCESS },
	{ .name = "swapped-out", .step = 1, .swapped = true, .result = SUCCESS },
	{ .name = "uffd-rollback", .step = 2, .uffd = true, .err = EBUSY,
	  .result = "exceed_none_pte" },
	{ .name = "filled-rollback", .first = 1, .step = 1, .filled = true, .err = EAGAIN,
	  .result = "page_filled" },
	{ .name = "mapped", .step = 1, .on_disk = true, .result = SUCCESS },
	{ .name = "not-mapped", .step = 1, .on_disk = true, .unmapped = true, .result = SUCCESS },
};

const char *dir;

static const char *what = "time", *trace_clock = "mono";

/*
 * A thread that fills the first page at a given time. It runs on the CPU that collapses, with
 * real-time priority.
 */
static struct {
	sem_t begin, end;
	long at;
	int fd;
} filler;

static void *fill_first(void *unused)
{
	struct sched_param param = { .sched_priority = 1 };
	struct timespec at;

	if (sched_setscheduler(0, SCHED_FIFO, &param))
		die("cannot use SCHED_FIFO; run as root");
	for (;;) {
		sem_wait(&filler.begin);
		at.tv_sec = filler.at / 1000000000;
		at.tv_nsec = filler.at % 1000000000;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
		if (pwrite(filler.fd, "", 1, 0) != 1)
			die("the hole cannot be filled: %s", strerror(errno));
		sem_post(&filler.end);
	}
	return unused;
}

static void start_filler(void)
{
	static pthread_t thread;

	if (thread)
		return;
	sem_init(&filler.begin, 0, 0);
	sem_init(&filler.end, 0, 0);
	if (pthread_create(&thread, NULL, fill_first, NULL))
		die("cannot create a thread");
}

/* Return the time of a collapse. If @fill_after is not 0, a hole is filled that much later. */
static long measure_time(const struct range *r, long fill_after, int *err)
{
	long begun, ended;

	wait_for_tick();
	if (fill_after) {
		filler.at = now() + fill_after;
		filler.fd = r->fd;
		sem_post(&filler.begin);
	}
	begun = now();
	*err = advise(r);
	ended = now();
	if (fill_after)
		sem_wait(&filler.end);
	return ended - begun;
}

static long measure_locks(const struct range *r, int *err)
{
	static const char class[] = "&xa->xa_lock";
	long acquired = 0, count;
	char line[512];
	FILE *file;

	set(LOCK_STAT, "0");
	set(LOCK_STAT_ON, "1");
	*err = advise(r);
	set(LOCK_STAT_ON, "0");

	file = fopen(LOCK_STAT, "r");
	while (file && fgets(line, sizeof(line), file)) {
		char *name = line + strspn(line, " "), *field = strchr(line, ':');

		if (strncmp(name, class, strlen(class)) || !field)
			continue;
		/* Skip the seven contention numbers. */
		if (sscanf(field + 1, "%*s %*s %*s %*s %*s %*s %*s %ld", &count) == 1)
			acquired += count;
	}
	if (!acquired)
		die("%s has no line for %s", LOCK_STAT, class);
	fclose(file);
	return acquired;
}

/* Return the time stamp of a trace line: a plain number, or ns if it is in seconds. */
static long stamp_of(char *line, char *event)
{
	char *stamp, *point;

	*event = '\0';
	stamp = strrchr(line, ' ');
	if (!stamp)
		return 0;
	point = strchr(stamp, '.');
	if (!point)
		return strtol(stamp, NULL, 10);
	return strtol(stamp, NULL, 10) * 1000000000 + strtol(point + 1, NULL, 10) * 1000;
}

/*
 * Return the longest time from an irq_disable event to the next irq_enable event, and the
 * caller that disabled interrupts. Interrupt entry and context switches are left out.
 */
static long longest_irqs_off(FILE *file, char *by, size_t size)
{
	long since = 0, longest = 0;
	char line[512], opener[128] = "";

	while (fgets(line, sizeof(line), file)) {
		char *off = strstr(line, ": irq_disable: "), *on = strstr(line, ": irq_enable: ");

		if (off) {
			char *who = strstr(off, "caller=") ?: "";

			snprintf(opener, sizeof(opener), "%s", who);
			opener[strcspn(opener, "+ ")] = '\0';
			since = stamp_of(line, off);
			if (strstr(opener, "irqentry") || strstr(opener, "__schedule"))
				since = 0;
		} else if (on && since) {
			long len = stamp_of(line, on) - since;

			if (len > longest) {
				longest = len;
				snprintf(by, size, "%s", opener);
			}
			since = 0;
		}
	}
	return longest;
}

static long measure_irqs_off(const struct range *r, int *err, char *by, size_t size)
{
	FILE *file;
	long longest;

	set(TRACING "/trace", "");
	set(TRACING "/tracing_on", "1");
	*err = advise(r);
	set(TRACING "/tracing_on", "0");
	file = fopen(TRACING "/trace", "r");
	longest = file ? longest_irqs_off(file, by, size) : 0;
	if (!longest)
		die("the trace has no irq_disable events");
	fclose(file);
	return longest;
}

static void begin_irqs_off(void)
{
	char pid[16];

	if (mkdir(TRACING, 0700) && errno != EEXIST)
		die("%s: %s", TRACING, strerror(errno));
	snprintf(pid, sizeof(pid), "%d", getpid());
	set(TRACING "/tracing_on", "0");
	set(TRACING "/buffer_size_kb", "16384");
	set(TRACING "/trace_clock", trace_clock);
	set(TRACING "/set_event_pid", pid);
	set(TRACING "/events/preemptirq/irq_disable/enable", "1");
	set(TRACING "/events/preemptirq/irq_enable/enable", "1");
}

static void end_irqs_off(void)
{
	set(TRACING "/events/preemptirq/enable", "0");
	rmdir(TRACING);
}

/* Check once, with a trace, that a collapse has the expected result. */
static void check(const struct scenario *s, const char *impl, long fill_after)
{
	struct outcome outcome = {};
	struct range r;
	int err;

	trace_pause(false);
	use(impl);
	for (int try = 0; try < TRIES && strcmp(outcome.result, s->result); try++) {
		prepare(s, &r);
		measure_time(&r, fill_after, &err);
		traced_elsewhere((uintptr_t)r.base, &outcome);
		release(s, &r);
	}
	trace_pause(true);
	if (strcmp(outcome.result, s->result))
		die("%s, %s: %s, %s", name_of(s), impl, strerror(err), outcome.result);
}

static long measure(const struct scenario *s, const char *impl, long fill_after, char *by,
		    size_t size)
{
	struct range r;
	long value;
	int err;

	use(impl);
	for (int try = 0; try < TRIES; try++) {
		prepare(s, &r);
		if (!strcmp(what, "locks"))
			value = measure_locks(&r, &err);
		else if (!strcmp(what, "irqs-off"))
			value = measure_irqs_off(&r, &err, by, size);
		else
			value = measure_time(&r, fill_after, &err);
		if (!err && !is_right(s, &r))
			die("%s, %s: the content is wrong", name_of(s), impl);
		release(s, &r);
		if (err == (s->filled && !fill_after ? 0 : s->err) && value > fill_after)
			return value;
	}
	die("%s, %s: %s", name_of(s), impl, strerror(err));
}

static void run(const struct scenario *s, long rounds)
{
	long fill_after = 0;
	char by[128] = "";

	/* Other measurements would include the filler. */
	if (s->filled && strcmp(what, "time"))
		return;
	if (s->only && strcmp(what, s->only))
		return;
	/* After half the time of the faster collapse, neither one has copied all pages. */
	if (s->filled) {
		start_filler();
		fill_after = measure(s, impls[0], 0, by, sizeof(by));
		for (int i = 1; i < NR_IMPLS; i++) {
			long other = measure(s, impls[i], 0, by, sizeof(by));

			if (other < fill_after)
				fill_after = other;
		}
		fill_after /= 2;
	}
	for (int i = 0; i < NR_IMPLS; i++)
		check(s, impls[i], fill_after);
	for (long round = 0; round < rounds; round++) {
		/* Change the order in each round. */
		for (int i = 0; i < NR_IMPLS; i++) {
			const char *impl = impls[(i + round) % NR_IMPLS];
			long value = measure(s, impl, fill_after, by, sizeof(by));

			printf("sample %s %s %ld %s\n", name_of(s), impl, value, by);
		}
		if (!strcmp(what, "time"))
			printf("sample %s floor %ld\n", name_of(s), measure_floor(s));
		fflush(stdout);
	}
}

static bool wanted(const struct scenario *s, char **names)
{
	if (s->on_disk != !!dir)
		return false;
	if (!*names)
		return true;
	while (*names && strcmp(*names, name_of(s)))
		names++;
	return *names;
}

static __noreturn void wrong_usage(void)
{
	fprintf(stderr,
		"usage: collapse_bench [-m time | locks | irqs-off | bystander] [-n ROUNDS] [-d DIR]\n"
		"                      [-c CLOCK] [SCENARIO...]\n");
	exit(2);
}

static bool is_kind(const char *name)
{
	static const char * const kinds[] = { "time", "locks", "irqs-off", "bystander" };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(name, kinds[i]))
			return true;
	return false;
}

int main(int argc, char **argv)
{
	const char *before;
	long rounds = 5;
	char *end = "";
	int option;

	while ((option = getopt(argc, argv, "m:n:d:c:")) != -1) {
		if (option == 'm')
			what = optarg;
		else if (option == 'n')
			rounds = strtol(optarg, &end, 10);
		else if (option == 'd')
			dir = optarg;
		else if (option == 'c')
			trace_clock = optarg;
		else
			wrong_usage();
	}
	if (*end || rounds < 1 || !is_kind(what))
		wrong_usage();
	before = implementation();
	if (!before)
		die("the kernel has one collapse_file() only; enable CONFIG_RUST_COLLAPSE_FILE");
	run_on(0);
	find_fast_strings();
	print_clock();
	if (!strcmp(what, "bystander")) {
		run_bystander(&scenarios[0], rounds);
	} else {
		/* Pause the trace instead of ending it, because the end delays later collapses. */
		if (!trace_begin())
			die("cannot trace collapses; run as root, with tracefs mounted");
		trace_pause(true);
		if (!strcmp(what, "irqs-off"))
			begin_irqs_off();
		for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++)
			if (wanted(&scenarios[i], argv + optind))
				run(&scenarios[i], rounds);
		if (!strcmp(what, "irqs-off"))
			end_irqs_off();
		trace_end();
	}
	use(before);
	return 0;
}
