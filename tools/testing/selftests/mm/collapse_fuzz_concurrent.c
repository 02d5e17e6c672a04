// SPDX-License-Identifier: GPL-2.0
/*
 * collapse_fuzz -m concurrent: many threads use one file while others collapse it and switch
 * the implementation.
 *
 * The result of a collapse is not predictable. But each page belongs to one thread. That
 * thread knows the content of the page, and no other content may appear.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "collapse_file_util.h"
#include "collapse_fuzz.h"

#define ROUND_SECONDS	2
#define HANG_SECONDS	120

/* The owner of each page: by turns below the tail, and the truncator in the tail. */
#define TAIL		(NR_PAGES * 3 / 4)
#define TURN		8
#define NR_WRITERS	3	/* each owns two pages of a turn */
#define NEVER_WRITTEN	6	/* always a hole, or zeroes */
#define WATCHER		7	/* a hole while it is watched */

struct worker {
	const char *name;
	void (*work)(struct worker *worker);
	unsigned int nr;
	pthread_t thread;
	uint64_t seed;
	unsigned long done;
	unsigned int versions[NR_PAGES];	/* of the pages of this worker; 0: zeroes */
};

static struct {
	int fd;
	bool regular, stop, bad;
	char *base;
	unsigned long collapses, succeeded;
} shared;

static __printf(2, 3) void violation(struct worker *worker, const char *format, ...)
{
	char text[160];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	/* Print only the first violation. */
	if (!__atomic_exchange_n(&shared.bad, true, __ATOMIC_RELAXED))
		printf("# violation: %s %u, with %s: %s\n", worker->name, worker->nr,
		       shared.regular ? "a regular file" : "a memfd", text);
}

static unsigned int some_own_page(struct worker *worker, unsigned int place)
{
	return below(TAIL / TURN) * TURN + place + worker->nr * 2;
}

/* Check that the memory of @page at @at has the content that the worker wrote. */
static void check_page(struct worker *worker, char *at, unsigned int page, const char *how)
{
	static __thread char expected[PAGE];
	uint64_t value = worker->versions[page] ? stamp(page, worker->versions[page]) : 0;
	uint64_t found = 0;

	if (!touch_page(at)) {
		violation(worker, "SIGBUS at page %u by %s", page, how);
		return;
	}
	for (int i = 0; i < 3; i++) {
		if (compare_page(at + stamp_places[i], (char *)&value, sizeof(value))) {
			memcpy(&found, at + stamp_places[i], sizeof(found));
			violation(worker, "page %u by %s: %#lx instead of %#lx", page, how,
				  (long)found, (long)value);
		}
	}
	if (!worker->versions[page] && compare_page(at, expected, PAGE))
		violation(worker, "page %u by %s: not all zeroes", page, how);
}

static void read_page(struct worker *worker, unsigned int page)
{
	static __thread char content[PAGE];

	if (pread(shared.fd, content, PAGE, page * PAGE) != PAGE)
		violation(worker, "read() of page %u: %s", page, strerror(errno));
	else
		check_page(worker, content, page, "read()");
}

static void store_page(struct worker *worker, unsigned int page)
{
	if (stamp_page(shared.base + page * PAGE, page, ++worker->versions[page]))
		return;
	violation(worker, "SIGBUS at page %u", page);
}

static void write_page_whole(struct worker *worker, unsigned int page)
{
	static __thread char content[PAGE];

	memset(content, 'w', sizeof(content));
	stamp_page(content, page, ++worker->versions[page]);
	if (pwrite(shared.fd, content, PAGE, page * PAGE) != PAGE)
		violation(worker, "write() of page %u: %s", page, strerror(errno));
}

/*
 * Hole punching and truncation take invalidate_lock and wait for folio locks. A kernel whose
 * collapse_file() reads a regular file with folios locked waits in the other order, and can
 * deadlock. The test runs on such a kernel too, so it does not punch and truncate there.
 */
static bool may_deadlock(void)
{
	return shared.regular && !ask_for_trouble;
}

static void punch_page(struct worker *worker, unsigned int page)
{
	if (fallocate(shared.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page * PAGE, PAGE))
		violation(worker, "fallocate() of page %u: %s", page, strerror(errno));
	worker->versions[page] = 0;
}

static void write_and_check(struct worker *worker)
{
	unsigned int page = some_own_page(worker, below(2));
	char *at = shared.base + page * PAGE;

	switch (below(8)) {
	case 0:
	case 1:
		store_page(worker, page);
		break;
	case 2:
		write_page_whole(worker, page);
		break;
	case 3:
		if (may_deadlock())
			posix_fadvise(shared.fd, page * PAGE, PAGE, POSIX_FADV_DONTNEED);
		else
			punch_page(worker, page);
		break;
	case 4:
		read_page(worker, page);
		break;
	case 5:
		/* Large shmem folios must not be swapped out, see usable() in collapse_fuzz.c. */
		madvise(at, PAGE, shared.regular ? MADV_PAGEOUT : MADV_DONTNEED);
		break;
	default:
		check_page(worker, at, page, "the mapping");
	}
	/* Without a pause, a worker would be in the way of every collapse. */
	if (chance(4))
		usleep(below(20000));
}

static void collapse_it(struct worker *worker)
{
	int err;

	choose_implementation(impls[below(2)]);
	err = madvise(shared.base, HUGE, MADV_COLLAPSE) ? errno : 0;
	__atomic_add_fetch(&shared.collapses, 1, __ATOMIC_RELAXED);
	if (!err)
		__atomic_add_fetch(&shared.succeeded, 1, __ATOMIC_RELAXED);
	else if (err != EAGAIN && err != EBUSY && err != EINVAL && err != ENOMEM)
		violation(worker, "errno %d", err);
	if (chance(30))
		usleep(below(5000));
}

/* Register a userfaultfd. An access to a page that is missing after that must raise SIGBUS. */
static void watch(struct worker *worker)
{
	char *alias = map_range(shared.fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	int uffd = open_sigbus_uffd();

	for (int i = 0; i < 4; i++)
		punch_page(worker, below(TAIL / TURN) * TURN + WATCHER);
	if (!alias || register_uffd(uffd, alias, NR_PAGES, 0))
		violation(worker, "UFFDIO_REGISTER: %s", strerror(errno));
	for (int i = 0; i < 32 && alias; i++) {
		off_t page = below(TAIL / TURN) * TURN + WATCHER;

		if (lseek(shared.fd, page * PAGE, SEEK_DATA) != page * (off_t)PAGE &&
		    touch_page(alias + page * PAGE))
			violation(worker, "page %ld was missing, and no event came", (long)page);
	}
	close(uffd);
	if (alias)
		munmap(alias, HUGE);
	/* No collapse succeeds while a userfaultfd watches holes, so pause now. */
	usleep(below(50000));
}

static void truncate_and_grow(struct worker *worker)
{
	unsigned int page = TAIL + below(NR_PAGES - TAIL);

	for (int i = 0; i < 8; i++) {
		store_page(worker, page);
		read_page(worker, page);
		page = TAIL + below(NR_PAGES - TAIL);
	}
	if (!may_deadlock() && chance(50) && !ftruncate(shared.fd, TAIL * PAGE)) {
		sched_yield();
		memset(&worker->versions[TAIL], 0, (NR_PAGES - TAIL) * sizeof(int));
		if (ftruncate(shared.fd, HUGE))
			violation(worker, "ftruncate(): %s", strerror(errno));
	}
	read_page(worker, page);
	usleep(below(20000));
}

/* Create and remove mappings and processes. */
static void map_and_fork(struct worker *worker)
{
	unsigned int page = below(TAIL / TURN) * TURN + NEVER_WRITTEN;
	char *at = map_range(shared.fd, 0, PROT_READ | PROT_WRITE,
			     chance(50) ? MAP_SHARED : MAP_PRIVATE);
	pid_t child = chance(10) ? fork() : -1;

	if (!child) {
		touch_page(shared.base + page * PAGE);
		_exit(0);
	}
	if (at) {
		check_page(worker, at + page * PAGE, page, "a new mapping");
		munmap(at, HUGE);
	}
	if (child > 0)
		waitpid(child, NULL, 0);
	usleep(below(2000));
}

static struct worker workers[] = {
	{ .name = "writer", .work = write_and_check, .nr = 0 },
	{ .name = "writer", .work = write_and_check, .nr = 1 },
	{ .name = "writer", .work = write_and_check, .nr = 2 },
	{ .name = "collapser", .work = collapse_it, .nr = 0 },
	{ .name = "collapser", .work = collapse_it, .nr = 1 },
	{ .name = "truncator", .work = truncate_and_grow },
	{ .name = "mapper", .work = map_and_fork },
	/* The last one, because a regular file has none. */
	{ .name = "watcher", .work = watch },
};

#define NR_WORKERS	((int)ARRAY_SIZE(workers))

static void *run_worker(void *arg)
{
	struct worker *worker = arg;

	seed_random(worker->seed);
	while (!__atomic_load_n(&shared.stop, __ATOMIC_ACQUIRE)) {
		worker->work(worker);
		__atomic_add_fetch(&worker->done, 1, __ATOMIC_RELAXED);
	}
	/* Check the pages of this worker once more. No other thread changes them. */
	for (unsigned int page = 0; page < NR_PAGES; page++)
		if (worker->versions[page])
			read_page(worker, page);
	return NULL;
}

/* Wait until the round is over. Return false if a worker makes no progress. */
static bool watchdog(int nr)
{
	double end = now() + ROUND_SECONDS, last = now();
	unsigned long done[NR_WORKERS] = {};

	while (now() < end && !stop && !__atomic_load_n(&shared.bad, __ATOMIC_RELAXED))
		usleep(100000);
	__atomic_store_n(&shared.stop, true, __ATOMIC_RELEASE);
	for (int i = 0; i < nr; i++) {
		while (pthread_tryjoin_np(workers[i].thread, NULL)) {
			unsigned long more = __atomic_load_n(&workers[i].done, __ATOMIC_RELAXED);

			if (more != done[i])
				last = now();
			done[i] = more;
			if (now() - last > HANG_SECONDS) {
				printf("# %s %u hangs\n", workers[i].name, workers[i].nr);
				return false;
			}
			usleep(10000);
		}
		last = now();
	}
	return true;
}

static bool play_round(uint64_t seed, int fd, bool regular)
{
	int nr = NR_WORKERS - regular;

	shared.fd = fd;
	shared.regular = regular;
	shared.stop = false;
	if (ftruncate(fd, HUGE))
		bail_out("ftruncate");
	shared.base = map_range(fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	if (!shared.base)
		bail_out("mmap");
	for (int i = 0; i < nr; i++) {
		workers[i].seed = seed + i;
		workers[i].done = 0;
		memset(workers[i].versions, 0, sizeof(workers[i].versions));
		if (pthread_create(&workers[i].thread, NULL, run_worker, &workers[i]))
			bail_out("pthread_create");
	}
	if (!watchdog(nr))
		return false;
	munmap(shared.base, HUGE);
	close(fd);
	return true;
}

static int open_regular(const char *dir)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/collapse_fuzz.%d", dir, getpid());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	unlink(path);
	return fd;
}

bool fuzz_concurrently(uint64_t seed, unsigned long rounds, unsigned long seconds, const char *dir)
{
	double end = now() + seconds;
	unsigned long round;

	for (round = 0; round < rounds && !stop && (!seconds || now() < end); round++) {
		bool regular = dir && round % 2;
		int fd = regular ? open_regular(dir) : memfd_create("collapse_fuzz", MFD_CLOEXEC);

		if (fd < 0)
			bail_out(regular ? dir : "memfd_create");
		tell_kernel("round", seed + round);
		if (!play_round(seed + round, fd, regular) || shared.bad)
			break;
	}
	printf("# fuzz-concurrent: rounds=%lu collapses=%lu succeeded=%lu\n", round,
	       shared.collapses, shared.succeeded);
	return !shared.bad && (round == rounds || stop || seconds);
}
