/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Declarations that the files of collapse_fuzz share.
 */
#ifndef _COLLAPSE_FUZZ_H
#define _COLLAPSE_FUZZ_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "kselftest.h"
#include "collapse_file_util.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define THP		"/sys/kernel/mm/transparent_hugepage/"
#define SPLIT		"/sys/kernel/debug/split_huge_pages"
#define UNPOISON	"/sys/kernel/debug/hwpoison/unpoison-pfn"

/* Operations may reach past the end of the range that is collapsed. */
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
 * collapse_fuzz.c: the cases, the machine and the options.
 */
extern const char *disk;		/* directory for regular files, or NULL */
extern char base_dir[], cgroup[];	/* "" if there is none */
extern unsigned int have;		/* the requirements of operations that the machine meets */
extern bool stop;
extern bool sabotage;			/* make Rust fail, to test that this is detected */
extern bool ask_for_trouble;		/* include operations that are known to fail in C too */

__noreturn void bail_out(const char *what);
/* Log the seed to the console, so that it is known if the kernel crashes. */
void tell_kernel(const char *what, unsigned long seed);
double now(void);

/*
 * collapse_fuzz_concurrent.c
 */
bool fuzz_concurrently(uint64_t seed, unsigned long rounds, unsigned long seconds,
		       const char *dir);

/*
 * collapse_fuzz_ops.c: the operations on files.
 */
void seed_random(uint64_t seed);
unsigned int below(unsigned int limit);
bool chance(unsigned int percent);

/*
 * Accesses to memory that may raise a signal. The page may be past the end of the file, or a
 * marker may replace it. It may also be missing in a mapping with a userfaultfd, which has
 * UFFD_FEATURE_SIGBUS.
 */
void on_bus(int signal);
bool touch_page(char *at);
/* Like memcmp(), but return 0 after a signal. */
int compare_page(const char *at, const char *with, size_t len);
/* A stamp identifies a page and its version. A page has it in three places. */
extern const unsigned int stamp_places[3];
uint64_t stamp(unsigned int page, unsigned int version);
bool stamp_page(char *at, unsigned int page, unsigned int version);

/* Open a userfaultfd with all features that the fuzzer uses. Return -1 if that fails. */
int open_sigbus_uffd(void);
/* Register @nr pages. Return 0 or -errno. Mode 0 is MISSING. */
int register_uffd(int uffd, char *at, unsigned int nr, unsigned int mode);

/* The kinds of files. */
enum { MEMFD, TMPFS, TMPFS_SMALL, TMPFS_HUGE, ANON, REGULAR, NR_KINDS };
extern const struct file_kind {
	const char *name;
	unsigned int weight;
	const char *mount;		/* mount options, if the file has its own tmpfs */
} kinds[NR_KINDS];

/* The functions that can fail, and how often a collapse calls them, for example per page. */
#define NR_FAILURES 9
extern struct failure {
	const char *function;
	unsigned int calls, weight;	/* weight 0: the kernel cannot inject it */
	bool shmem, regular;
} failures[NR_FAILURES];

/* Requirements of an operation on the file and on the machine. */
enum {
	SHMEM = 1 << 0, DISK = 1 << 1, SWAPS = 1 << 2, INJECTS = 1 << 3, LIMITS = 1 << 4,
	TWO_NODES = 1 << 5, SPLITS = 1 << 6, KNOBS = 1 << 7, NO_LARGE_SHMEM = 1 << 8,
	POISONS = 1 << 9,
};

/*
 * A history: a file and the operations on it.
 */
struct op {
	int kind;
	unsigned int arg[MAX_ARGS];
};

struct history {
	int kind;
	bool rust_first;
	unsigned int at;	/* offset of the range in the file, in huge pages */
	int nr;
	struct op ops[MAX_OPS];
};

/* A mapping of a file. */
struct slot {
	char *at;			/* NULL: not in use */
	unsigned int page, nr;		/* first page and number of pages, in the range */
	bool private;
};

/* One of the two files that are compared, with its mappings and other state. */
struct twin {
	const struct history *history;
	bool regular, pinned, paged_out;
	int fd, uffd, pipe[2];
	char path[128];
	off_t start;			/* offset of the range in the file */
	struct slot slots[NR_SLOTS];	/* slot 0 is the mapping that is collapsed */
	pid_t children[NR_CHILDREN];
	int nr_children;
	unsigned int version;		/* of the content */
	unsigned int knob;		/* order set in sysfs, 0 if none */
	/* Arguments of operations that apply to the next collapse. */
	const unsigned int *failure, *limit, *meanwhile;
	bool sabotaged;
	int nr_poisoned;
	unsigned long poisoned[MAX_POISONED];	/* page-frame numbers */
	int nr_collapses;
	int nr_again;			/* retries after reads from the disk, which vary */
	struct outcome outcomes[MAX_COLLAPSES];
};

/* A kind of operation. The comment on its function documents the arguments. */
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
 * The expected content of the file. private_versions[] has the version of each page that a
 * private mapping has copied, and 0 for the pages that it shares with the file.
 */
extern char model[AREA], buffer[AREA];
extern unsigned int private_versions[NR_SLOTS][NR_PAGES];
/* Pages of a mapping with a marker. A read of such a page raises a signal. */
extern bool barred[NR_SLOTS][NR_PAGES];
/* Pages of the file whose reads may fail, because memory has failed. */
extern bool broken[NR_PAGES];

void model_write(size_t at, const char *from, size_t len);

/* Drain the LRU batches of all CPUs. */
void drain_lru(void);
void begin_twin(struct twin *twin, const struct history *history);
void end_twin(struct twin *twin);
off_t size_of(struct twin *twin);
/* Return how many of the @nr pages from @page on are below the end of the file. */
unsigned int below_end(struct twin *twin, unsigned int page, unsigned int nr);

/*
 * collapse_fuzz_history.c: prints, parses and generates histories.
 */
void print_history(const struct history *history, FILE *out);
char *history_text(const struct history *history);
bool parse_history(struct history *history, const char *text);
bool has_op(const struct history *history, const char *name);
void generate(struct history *history, uint64_t seed);

/*
 * collapse_fuzz_observe.c: plays a history, and records the observable state.
 */
#define NR_VM		12
#define NR_CGROUP	4

#define VANISHES	1	/* returns to the value before the file existed */
#define EACH_TRY	2	/* grows by one for each try of a collapse */

extern const struct counter {
	const char *name;
	unsigned int flags;
} vm_counters[NR_VM], cgroup_counters[NR_CGROUP];

struct counts {
	long vm[NR_VM], cgroup[NR_CGROUP];
};

struct cache_range {
	uint64_t offset, len;
};

struct cache_stat {
	uint64_t cached, dirty, writeback, evicted, recently_evicted;
};

struct observed {
	int nr_collapses;
	struct outcome outcomes[MAX_COLLAPSES];
	int errs[MAX_OPS];		/* of the operations */
	bool data[NR_PAGES];		/* SEEK_DATA */
	unsigned char resident[NR_PAGES];	/* mincore() */
	struct cache_stat cache;
	long blocks, fs_free;
	uint64_t flags[NR_PAGES];	/* KPF_ bits of the mapped pages */
	struct counts added;
	char wrong[128];		/* an error that needs no comparison */
};

void play(const struct history *history, int impl, struct observed *seen);
/* Sample the counters with which nothing_leaked() compares. */
void count_from_here(void);
bool nothing_leaked(void);

/*
 * collapse_fuzz_compare.c: compares the two implementations, and minimises histories.
 */
#define DIFFERENCE_LEN	320
extern char difference[DIFFERENCE_LEN];	/* the last one that was found, in a line */
extern struct observed seen[2];		/* by play_both() */

void print_outcome(char *text, size_t len, const struct outcome *outcome);
/* Play a history with each implementation. Return whether there is a difference. */
bool play_both(const struct history *history);
bool is_by_chance(const struct history *history);
void minimise(struct history *history);

#endif
