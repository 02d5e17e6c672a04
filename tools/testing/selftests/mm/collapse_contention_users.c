// SPDX-License-Identifier: GPL-2.0
/*
 * The users of the range in collapse_contention.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "collapse_contention.h"
#include "collapse_file_util.h"
#include "vm_util.h"

#define ROUND		8	/* operations between two rests */
#define REST_US		200

struct used_range range;
struct shared *shared;
const struct mode *mode;

static void use_pread(int op, unsigned long page)
{
	static __thread char content[PAGE];

	if (pread(range.fd, content, PAGE, page * PAGE) != PAGE)
		die("pread: %s", strerror(errno));
}

static void use_pwrite(int op, unsigned long page)
{
	static char content[PAGE];

	if (pwrite(range.fd, content, PAGE, page * PAGE) != PAGE)
		die("pwrite: %s", strerror(errno));
}

static void use_touch(int op, unsigned long page)
{
	FORCE_READ(range.alias[page * PAGE]);
}

static void use_read_fault(int op, unsigned long page)
{
	madvise(range.alias + page * PAGE, PAGE, MADV_DONTNEED);
	FORCE_READ(range.alias[page * PAGE]);
}

static void use_write_fault(int op, unsigned long page)
{
	madvise(range.alias + page * PAGE, PAGE, MADV_DONTNEED);
	__atomic_store_n(range.alias + page * PAGE, 1, __ATOMIC_RELAXED);
}

/* The two collapses begin at the same time. */
static void use_collapse(int op, unsigned long page)
{
	if (__atomic_load_n(&shared->phase, __ATOMIC_ACQUIRE) == TRY)
		madvise(range.alias, HUGE, MADV_COLLAPSE);
}

static void use_vmsplice(int op, unsigned long page)
{
	static char content[PAGE];
	static int ends[2];
	struct iovec iov = { .iov_base = range.alias + page * PAGE, .iov_len = PAGE };

	if (!ends[1] && pipe(ends))
		die("pipe: %s", strerror(errno));
	if (vmsplice(ends[1], &iov, 1, 0) != PAGE || read(ends[0], content, PAGE) != PAGE)
		die("vmsplice: %s", strerror(errno));
}

/* Use the only mapping, because MADV_PAGEOUT skips a page that is mapped twice. */
static void use_pageout(int op, unsigned long page)
{
	madvise(range.base + page * PAGE, PAGE, MADV_PAGEOUT);
}

/* Each of these operations adds or removes a mapping of the file. */
static void use_i_mmap(int op, unsigned long page)
{
	static char *at;
	static pid_t child;

	switch (op) {
	case 0:
		child = fork();
		if (child < 0)
			die("fork: %s", strerror(errno));
		if (!child)
			_exit(0);
		break;
	case 1:
		waitpid(child, NULL, 0);
		break;
	case 2:
		at = mmap(NULL, HUGE, PROT_READ, MAP_SHARED, range.fd, 0);
		if (at == MAP_FAILED)
			die("mmap: %s", strerror(errno));
		break;
	case 3:
		munmap(at, HUGE);
		break;
	}
}

const struct mode modes[NR_MODES] = {
	{ .name = "alone" },
	{ .name = "pread", .use = use_pread, .users = 1 },
	{ .name = "pread-rests", .use = use_pread, .users = 1, .rests = true },
	{ .name = "two-preaders", .use = use_pread, .users = 2 },
	{ .name = "pwrite", .use = use_pwrite, .users = 1 },
	{ .name = "pwrite-rests", .use = use_pwrite, .users = 1, .rests = true },
	{ .name = "touch", .use = use_touch, .users = 1, .alias = true },
	{ .name = "read-fault", .use = use_read_fault, .users = 1, .alias = true },
	{ .name = "read-fault-rests", .use = use_read_fault, .users = 1, .alias = true,
	  .rests = true },
	{ .name = "write-fault", .use = use_write_fault, .users = 1, .alias = true },
	{ .name = "write-fault-rests", .use = use_write_fault, .users = 1, .alias = true,
	  .rests = true },
	{ .name = "second-collapser", .use = use_collapse, .users = 1, .alias = true,
	  .collapses = true },
	{ .name = "vmsplice", .use = use_vmsplice, .users = 1, .alias = true },
	{ .name = "pageout", .use = use_pageout, .users = 1, .rests = true },
	{ .name = "wait-i-mmap", .use = use_i_mmap, .users = 1, .processes = true,
	  .ops = { "fork", "exit", "mmap", "munmap" } },
};

int nr_ops(void)
{
	int nr = 1;

	while (nr < MAX_OPS && mode->ops[nr])
		nr++;
	return nr;
}

static void work(int user)
{
	static __thread unsigned long seed, count;
	bool begun = false;

	for (;;) {
		int phase = __atomic_load_n(&shared->phase, __ATOMIC_ACQUIRE);
		int op = count % nr_ops();
		long time;

		if (phase == REST)
			return;
		if (!begun)
			__atomic_add_fetch(&shared->working, 1, __ATOMIC_ACQ_REL);
		begun = true;
		seed = seed * 6364136223846793005UL + 1442695040888963407UL + user;
		time = now();
		mode->use(op, (seed >> 33) % NR_PAGES);
		time = now() - time;
		count++;
		if ((phase == TRY || __atomic_load_n(&shared->phase, __ATOMIC_ACQUIRE) != READY) &&
		    time > shared->longest[user][op])
			shared->longest[user][op] = time;
		if (mode->rests && !(count % ROUND))
			usleep(REST_US);
	}
}

void *stand_by(void *user)
{
	run_on(1);
	for (;;) {
		sem_wait(&shared->begin);
		if (shared->stop)
			return NULL;
		work((intptr_t)user);
		sem_post(&shared->end);
	}
}
