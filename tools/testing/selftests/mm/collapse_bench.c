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
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/userfaultfd.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

#include "collapse_file_util.h"
#include "vm_util.h"

#define ORDER_SETTING	"/sys/kernel/mm/transparent_hugepage/hugepages-%lukB/shmem_enabled"
#define LOCK_STAT	"/proc/lock_stat"
#define LOCK_STAT_ON	"/proc/sys/kernel/lock_stat"
#define TRACING		"/sys/kernel/tracing/instances/collapse_bench"

#define NR_IMPLS	2
#define MAX_OTHERS	63
#define MANY_VMAS	30000
#define TRIES		20
#define STEPS		2000000L
#define MAX_SAMPLES	1000000UL

static const char * const impls[NR_IMPLS] = { "c", "rust" };

struct scenario {
	const char *name;
	/* Every @step-th page from @first on is present. */
	unsigned long first, step;
	unsigned int order;
	unsigned int others;	/* number of other processes that map the range */
	unsigned int vmas;	/* number of other VMAs of this process that map it */
	bool on_disk, unmapped, swapped;
	bool uffd;		/* a userfaultfd waits for the holes */
	bool filled;		/* another thread fills a hole while pages are copied */
	const char *only;	/* the only WHAT to measure, or NULL for all */
	int err;
	const char *result;
};

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

/* The range that is collapsed, and its other users. */
struct range {
	int fd, uffd;
	char *base;
	char *aliases;		/* address of the other VMAs */
	pid_t others[MAX_OTHERS];
};

static const char *what = "time", *dir, *trace_clock = "mono";

static void __noreturn __printf(1, 2) die(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fputs("error: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static void set(const char *path, const char *text)
{
	int err = write_text(path, text);

	if (err)
		die("%s: %s", path, strerror(err));
}

static long now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

/* Wait for a tick, so that the time until the next one is as long as possible. */
static void wait_for_tick(void)
{
	struct timespec before, ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &before);
	do {
		clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	} while (ts.tv_nsec == before.tv_nsec);
}

static void run_on(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		die("cannot run on CPU %d; use a machine with two CPUs", cpu);
}

static const char *name_of(const struct scenario *s)
{
	static char name[64];
	char path[256];

	if (!s->on_disk)
		return s->name;
	snprintf(path, sizeof(path), "%s", dir);
	snprintf(name, sizeof(name), "%s-%s", basename(path), s->name);
	return name;
}

static bool is_there(const struct scenario *s, unsigned long page)
{
	return page >= s->first && !((page - s->first) % s->step);
}

/*
 * The floor: copy and clear the same pages, with the same instructions as the kernel.
 */
static bool fast_strings;

static void find_fast_strings(void)
{
#ifdef __x86_64__
	unsigned int eax, ebx, ecx, edx;

	fast_strings = __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && ebx >> 9 & 1;
#endif
}

static void copy(char *to, const char *from, unsigned long len)
{
#ifdef __x86_64__
	if (fast_strings) {
		asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(len) : : "memory");
		return;
	}
#endif
	memcpy(to, from, len);
}

static void clear(char *at, unsigned long len)
{
#ifdef __x86_64__
	if (fast_strings) {
		asm volatile("rep stosb" : "+D"(at), "+c"(len) : "a"(0) : "memory");
		return;
	}
#endif
	memset(at, 0, len);
}

static char *huge_buffer(void)
{
	char *at = map_range(-1, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);

	if (!at)
		die("no memory");
	madvise(at, HUGE, MADV_HUGEPAGE);
	memset(at, 1, HUGE);
	return at;
}

static long measure_floor(const struct scenario *s)
{
	static char *from, *to;
	unsigned long ends[NR_PAGES], parts = 0, page = 0;
	bool there = is_there(s, 0);
	long begun;

	if (!from) {
		from = huge_buffer();
		to = huge_buffer();
	}
	/* A part is a sequence of pages, or of holes. */
	for (unsigned long end = 1; end <= NR_PAGES; end++)
		if (end == NR_PAGES || is_there(s, end) != is_there(s, end - 1))
			ends[parts++] = end;

	wait_for_tick();
	begun = now();
	for (unsigned long part = 0; part < parts; part++, there = !there) {
		unsigned long len = (ends[part] - page) * PAGE;

		if (there)
			copy(to + page * PAGE, from + page * PAGE, len);
		else
			clear(to + page * PAGE, len);
		page = ends[part];
	}
	return now() - begun;
}

/* Print the time of STEPS instructions: the shortest one, which no interrupt has extended. */
static void print_clock(void)
{
#ifdef __x86_64__
	long shortest = LONG_MAX;

	for (int try = 0; try < TRIES; try++) {
		long left = STEPS / 2, begun;

		wait_for_tick();
		begun = now();
		asm volatile("1: dec %0; jnz 1b" : "+r"(left) : : "cc");
		begun = now() - begun;
		if (begun < shortest)
			shortest = begun;
	}
	printf("clock %ld %ld\n", STEPS, shortest);
#endif
}

static void set_order(unsigned int order, const char *setting)
{
	char path[128];

	snprintf(path, sizeof(path), ORDER_SETTING, PAGE / 1024 << order);
	set(path, setting);
}

static void write_pages(const struct scenario *s, struct range *r)
{
	static char content[PAGE];

	for (unsigned long page = 0; page < NR_PAGES; page++) {
		if (!is_there(s, page))
			continue;
		content[0] = page % 255 + 1;
		if (!s->on_disk && !s->unmapped)
			r->base[page * PAGE] = content[0];
		else if (pwrite(r->fd, content, PAGE, page * PAGE) != PAGE)
			die("%s: write: %s", name_of(s), strerror(errno));
	}
}

static bool is_right(const struct scenario *s, const struct range *r)
{
	for (unsigned long page = 0; page < NR_PAGES; page++) {
		char byte = is_there(s, page) ? page % 255 + 1 : 0;

		if (r->base[page * PAGE] != byte)
			return false;
	}
	return true;
}

static void swap_out(const struct range *r)
{
	unsigned char resident[NR_PAGES];

	/* The next attempt frees the pages that this one writes to swap. */
	for (int try = 0; try < TRIES; try++) {
		madvise(r->base, HUGE, MADV_PAGEOUT);
		if (!mincore(r->base, HUGE, resident) && !memchr(resident, 1, NR_PAGES))
			return;
		usleep(10000);
	}
	die("the pages cannot be swapped out; add swap space");
}

/* Map the range in adjacent VMAs. They have no page tables. */
static void map_often(const struct scenario *s, struct range *r)
{
	size_t len = (size_t)s->vmas * HUGE;

	if (!s->vmas)
		return;
	r->aliases = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (r->aliases == MAP_FAILED)
		die("%s: mmap: %s", name_of(s), strerror(errno));
	for (char *at = r->aliases; at < r->aliases + len; at += HUGE)
		if (mmap(at, HUGE, PROT_READ, MAP_SHARED | MAP_FIXED, r->fd, 0) == MAP_FAILED)
			die("%s: mmap: %s", name_of(s), strerror(errno));
}

/* Fork processes that map every page. They stay until release() kills them. */
static void fork_others(const struct scenario *s, struct range *r)
{
	int ready[2];
	char byte;

	if (pipe(ready))
		die("pipe: %s", strerror(errno));
	for (unsigned int i = 0; i < s->others; i++) {
		r->others[i] = fork();
		if (r->others[i] < 0)
			die("fork: %s", strerror(errno));
		if (!r->others[i]) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			byte = !is_right(s, r);
			if (write(ready[1], &byte, 1) != 1)
				_exit(1);
			pause();
			_exit(0);
		}
	}
	for (unsigned int i = 0; i < s->others; i++)
		if (read(ready[0], &byte, 1) != 1 || byte)
			die("%s: a process does not see the pages", name_of(s));
	close(ready[0]);
	close(ready[1]);
}

static void prepare(const struct scenario *s, struct range *r)
{
	char path[256], *empty;

	memset(r, 0, sizeof(*r));
	r->uffd = -1;
	if (s->on_disk) {
		snprintf(path, sizeof(path), "%s/collapse_bench", dir);
		r->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		unlink(path);
	} else {
		r->fd = memfd_create("collapse_bench", MFD_CLOEXEC);
	}
	if (r->fd < 0 || ftruncate(r->fd, HUGE))
		die("%s: no file: %s", name_of(s), strerror(errno));
	r->base = map_range(r->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	if (!r->base)
		die("%s: mmap: %s", name_of(s), strerror(errno));

	if (s->order)
		set_order(s->order, "always");
	write_pages(s, r);
	if (s->order)
		set_order(s->order, "never");
	if (s->on_disk && fsync(r->fd))
		die("%s: fsync: %s", name_of(s), strerror(errno));
	if (s->on_disk && !s->unmapped && !is_right(s, r))
		die("%s: not what was written", name_of(s));
	if (s->swapped)
		swap_out(r);
	fork_others(s, r);
	map_often(s, r);
	if (s->uffd) {
		struct uffdio_register reg = {
			.range = { .start = (uintptr_t)r->base, .len = HUGE },
			.mode = UFFDIO_REGISTER_MODE_MISSING,
		};

		r->uffd = open_uffd();
		if (r->uffd < 0 || ioctl(r->uffd, UFFDIO_REGISTER, &reg))
			die("%s: userfaultfd: %s", name_of(s), strerror(errno));
	}

	/* Drain the LRU batches, and wait until freed memory is gone. */
	empty = map_range(-1, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	madvise(empty, HUGE, MADV_COLLAPSE);
	munmap(empty, HUGE);
	usleep(20000);
}

static void release(const struct scenario *s, struct range *r)
{
	for (unsigned int i = 0; i < s->others; i++) {
		kill(r->others[i], SIGKILL);
		waitpid(r->others[i], NULL, 0);
	}
	if (r->uffd >= 0)
		close(r->uffd);
	if (s->vmas)
		munmap(r->aliases, (size_t)s->vmas * HUGE);
	munmap(r->base, HUGE);
	close(r->fd);
}

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

static int advise(const struct range *r)
{
	return madvise(r->base, HUGE, MADV_COLLAPSE) ? errno : 0;
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

static void use(const char *impl)
{
	if (!choose_implementation(impl))
		die("cannot select an implementation; run as root");
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

/*
 * The bystander runs on the other CPU. During a collapse it touches and reads all pages in a
 * scattered order. It uses each page only once: a second read would activate the page, an LRU
 * batch would hold a reference, and the collapse would fail. At a locked page the bystander
 * waits until the collapse has ended. The sample of a collapse is therefore the longest time.
 */
static struct {
	char *alias;
	int fd;
	unsigned long collapse;	/* 0, or attempts * NR_IMPLS + implementation */
	bool stop;
	unsigned int count[NR_IMPLS];	/* collapses during which it used a page */
	long *longest[2][NR_IMPLS];	/* longest time to touch or read a page, for each of them */
} bystander;

static const char * const bystander_names[2] = { "touch", "read" };

static void look_at_page(unsigned long page, int impl)
{
	char *at = bystander.alias + page * PAGE, byte;
	long times[3];

	madvise(at, PAGE, MADV_DONTNEED);
	times[0] = now();
	FORCE_READ(*at);
	times[1] = now();
	if (pread(bystander.fd, &byte, 1, page * PAGE) != 1)
		die("read: %s", strerror(errno));
	times[2] = now();
	for (int i = 0; i < 2; i++) {
		long *longest = &bystander.longest[i][impl][bystander.count[impl] - 1];

		*longest = MAX(*longest, times[i + 1] - times[i]);
	}
}

static void *stand_by(void *unused)
{
	unsigned long seen = 0, page = 0;

	run_on(1);
	while (!__atomic_load_n(&bystander.stop, __ATOMIC_ACQUIRE)) {
		unsigned long collapse = __atomic_load_n(&bystander.collapse, __ATOMIC_ACQUIRE);
		int impl = collapse % NR_IMPLS;

		if (collapse != seen)
			page = 0;
		seen = collapse;
		if (!collapse || page == NR_PAGES)
			continue;
		if (!page && bystander.count[impl] < MAX_SAMPLES)
			bystander.count[impl]++;
		look_at_page(page++ * 197 % NR_PAGES, impl);
	}
	return unused;
}

static void collapse_beside(const struct scenario *s, struct range *r, int impl)
{
	static unsigned long attempts;
	int err = EAGAIN;

	use(impls[impl]);
	/* A collapse fails while the bystander holds a reference, so retry. */
	for (int try = 0; try < 100 && err == EAGAIN; try++) {
		fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, HUGE);
		write_pages(s, r);
		usleep(5000);
		attempts++;
		__atomic_store_n(&bystander.collapse, attempts * NR_IMPLS + impl,
				 __ATOMIC_RELEASE);
		err = advise(r);
		__atomic_store_n(&bystander.collapse, 0, __ATOMIC_RELEASE);
	}
	if (err)
		die("bystander, %s: %s", impls[impl], strerror(err));
}

static int compare(const void *a, const void *b)
{
	long x = *(const long *)a, y = *(const long *)b;

	return (x > y) - (x < y);
}

static void run_bystander(long rounds)
{
	const struct scenario *s = &scenarios[0];
	pthread_t thread;
	struct range r;

	prepare(s, &r);
	bystander.fd = r.fd;
	bystander.alias = map_range(r.fd, 0, PROT_READ, MAP_SHARED);
	/* With MADV_RANDOM, an unmapped page does not count as accessed. */
	if (!bystander.alias || madvise(bystander.alias, HUGE, MADV_RANDOM))
		die("mmap: %s", strerror(errno));
	for (int i = 0; i < 2 * NR_IMPLS; i++)
		bystander.longest[i / NR_IMPLS][i % NR_IMPLS] = calloc(MAX_SAMPLES, sizeof(long));
	if (pthread_create(&thread, NULL, stand_by, NULL))
		die("cannot create a thread");
	for (long round = 0; round < rounds; round++)
		for (int i = 0; i < NR_IMPLS; i++)
			collapse_beside(s, &r, (i + round) % NR_IMPLS);
	__atomic_store_n(&bystander.stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);

	for (int i = 0; i < 2 * NR_IMPLS; i++) {
		unsigned int count = bystander.count[i % NR_IMPLS];
		long *samples = bystander.longest[i / NR_IMPLS][i % NR_IMPLS];

		if (!count)
			die("the bystander saw no collapse");
		qsort(samples, count, sizeof(*samples), compare);
		printf("bystander %s %s %ld %ld %ld %u\n", bystander_names[i / NR_IMPLS],
		       impls[i % NR_IMPLS], samples[count / 2], samples[count * 99 / 100],
		       samples[count - 1], count);
	}
	release(s, &r);
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
		run_bystander(rounds);
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
