// SPDX-License-Identifier: GPL-2.0
/*
 * The ranges that collapse_bench collapses, and the floor of their cost.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/userfaultfd.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

#include "collapse_bench.h"
#include "collapse_file_util.h"

#define ORDER_SETTING	"/sys/kernel/mm/transparent_hugepage/hugepages-%lukB/shmem_enabled"
#define STEPS		2000000L

/* Wait for a tick, so that the time until the next one is as long as possible. */
void wait_for_tick(void)
{
	struct timespec before, ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &before);
	do {
		clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	} while (ts.tv_nsec == before.tv_nsec);
}

const char *name_of(const struct scenario *s)
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

void find_fast_strings(void)
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

long measure_floor(const struct scenario *s)
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
void print_clock(void)
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

void write_pages(const struct scenario *s, struct range *r)
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

bool is_right(const struct scenario *s, const struct range *r)
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

void prepare(const struct scenario *s, struct range *r)
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

void release(const struct scenario *s, struct range *r)
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

int advise(const struct range *r)
{
	return madvise(r->base, HUGE, MADV_COLLAPSE) ? errno : 0;
}
