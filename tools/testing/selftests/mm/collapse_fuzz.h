/* SPDX-License-Identifier: GPL-2.0 */
/*
 * collapse_fuzz: the parts that it has.
 */
#ifndef _COLLAPSE_FUZZ_H
#define _COLLAPSE_FUZZ_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "kselftest.h"
#include "collapse_file_util.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define THP		"/sys/kernel/mm/transparent_hugepage/"
#define SPLIT		"/sys/kernel/debug/split_huge_pages"
#define UNPOISON	"/sys/kernel/debug/hwpoison/unpoison-pfn"

/* Operations may reach beyond the range that is collapsed. */
#define AREA_PAGES	(NR_PAGES + 16)
#define AREA		(AREA_PAGES * PAGE)
#define MAX_OPS		48
#define MAX_ARGS	4
#define MAX_COLLAPSES	4
#define NR_SLOTS	4
#define NR_CHILDREN	2
#define MAX_POISONED	8

enum { C, RUST };
extern const char * const impls[];

/*
 * collapse_fuzz.c: the frame of it all.
 */
extern const char *disk;		/* directory for regular files, or NULL */
extern char base_dir[], cgroup[];	/* "" where there is none */
extern bool stop;
extern bool sabotage;			/* make a difference, to see whether it is found */
extern bool ask_for_trouble;		/* do also what is known to go wrong in C as well */

__noreturn void bail_out(const char *what);
/* A kernel that stops has said at the console what it was at. */
void tell_kernel(const char *what, unsigned long seed);
double now(void);

/*
 * collapse_fuzz_concurrent.c
 */
bool fuzz_concurrently(uint64_t seed, unsigned long rounds, unsigned long seconds,
		       const char *dir);

/*
 * collapse_fuzz_ops.c: what is done to files.
 */
void seed_random(uint64_t seed);
unsigned int below(unsigned int limit);
bool chance(unsigned int percent);

/*
 * Memory that may not be there: past the end of the file, missing where a userfaultfd
 * is registered, which has the feature SIGBUS, or replaced by a marker.
 */
void on_bus(int signal);
bool touch_page(char *at);
/* As memcmp(), 0 also if it is not there. */
int compare_page(const char *at, const char *with, size_t len);
/* What tells a page and its version, in three places. */
extern const unsigned int stamp_places[3];
uint64_t stamp(unsigned int page, unsigned int version);
bool stamp_page(char *at, unsigned int page, unsigned int version);

/* -1 or a userfaultfd with all that is needed here. */
int open_sigbus_uffd(void);
/* 0 or -errno. Mode 0 is MISSING. */
int register_uffd(int uffd, char *at, unsigned int nr, unsigned int mode);

/* Where the file of a case comes from. */
enum { MEMFD, TMPFS, TMPFS_SMALL, TMPFS_HUGE, ANON, REGULAR, NR_KINDS };
extern const struct file_kind {
	const char *name;
	unsigned int weight;
	const char *mount;		/* options of its own tmpfs */
} kinds[NR_KINDS];

/* What an injected failure can be of, and how often it is called: once or per page. */
#define NR_FAILURES 9
extern struct failure {
	const char *function;
	unsigned int calls, weight;	/* 0 where the kernel does not have it */
	bool shmem, regular;
} failures[NR_FAILURES];

/* What an operation needs: of the file, and of the machine. */
enum {
	SHMEM = 1 << 0, DISK = 1 << 1, SWAPS = 1 << 2, INJECTS = 1 << 3, LIMITS = 1 << 4,
	TWO_NODES = 1 << 5, SPLITS = 1 << 6, KNOBS = 1 << 7, NO_LARGE_SHMEM = 1 << 8,
	POISONS = 1 << 9,
};

/*
 * A history.
 */
struct op {
	int kind;
	unsigned int arg[MAX_ARGS];
};

struct history {
	int kind;
	bool rust_first;
	unsigned int at;	/* which huge page of the file */
	int nr;
	struct op ops[MAX_OPS];
};

/* One of the two files, and all that is around it. */
struct slot {
	char *at;			/* NULL: not in use */
	unsigned int page, nr;		/* of the range */
	bool private;
};

struct twin {
	const struct history *history;
	bool regular, pinned, paged_out;
	int fd, uffd, pipe[2];
	char path[128];
	off_t start;			/* of the range in the file */
	struct slot slots[NR_SLOTS];	/* the first one is where it is collapsed */
	pid_t children[NR_CHILDREN];
	int nr_children;
	unsigned int version;		/* of the content */
	unsigned int knob;		/* order set in sysfs, 0 if none */
	/* Arguments of what is for the next collapse. */
	const unsigned int *failure, *limit, *meanwhile;
	bool sabotaged;
	int nr_poisoned;
	unsigned long poisoned[MAX_POISONED];	/* page-frame numbers */
	int nr_collapses;
	int nr_again;			/* how often one waited for the disk, which is by chance */
	struct outcome outcomes[MAX_COLLAPSES];
};

/* A kind of operation. What its arguments are is told where it is. */
extern const struct op_kind {
	const char *name;
	int nr_args;
	int (*run)(struct twin *twin, const unsigned int *arg);	/* 0 or -errno */
	void (*make)(unsigned int *arg);
	unsigned int weight, needs;
} op_kinds[];
extern const int nr_op_kinds;

int op_named(const char *name);
bool op_is(const struct op *op, const char *name);

/*
 * What the file should have in it, and what private mappings have of their own: the
 * version, 0 for what the file has.
 */
extern char model[AREA], buffer[AREA];
extern unsigned int private_versions[NR_SLOTS][NR_PAGES];
/* Pages of mappings with a marker: reading them raises a signal. */
extern bool barred[NR_SLOTS][NR_PAGES];
/* Pages of the file that may be an error, because memory has failed. */
extern bool broken[NR_PAGES];

void model_write(size_t at, const char *from, size_t len);

/* Have folios that are on their way to the LRU get there. */
void drain_lru(void);
void begin_twin(struct twin *twin, const struct history *history);
void end_twin(struct twin *twin);
off_t size_of(struct twin *twin);
/* How many of @nr pages are below the end of the file. */
unsigned int below_end(struct twin *twin, unsigned int page, unsigned int nr);

#endif
