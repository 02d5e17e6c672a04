/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of collapse_file() share: asking for a collapse and learning what
 * came of it, having it fail or wait on the way, and what can be seen of a file.
 */
#ifndef _COLLAPSE_FILE_UTIL_H
#define _COLLAPSE_FILE_UTIL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "kselftest.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* Under emulation, beside others, the harness' own 30 seconds are too few. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 120

#define PAGE		4096UL
#define HUGE		(2UL << 20)
#define NR_PAGES	(HUGE / PAGE)

/* Content: each page has its own, and none has zeroes. */
void write_page(char *base, unsigned long page);
bool page_is(const char *base, unsigned long page, bool hole);

/* A range with a hole in front of every seven pages, or without one. */
bool is_hole(unsigned long page);
void fill(char *base, bool holes);
bool content_is_right(const char *base, bool holes);

/* Map HUGE bytes of a file where a huge page fits, or somewhere else at @at. */
char *map_range(int fd, off_t offset, int prot, int flags);

/*
 * A new file in COLLAPSE_FILE_DIR with the content of fill(), in small folios that were
 * written back. It has no name, so it ends with the test. Returns -1, and sets @why, if
 * there is no such directory.
 */
int regular_file(const char **why);

/* A userfaultfd that knows all that is tested: -1 without the right to it. */
int open_uffd(void);

/* Write all of @text to a file: 0 or an errno. */
int write_text(const char *path, const char *text);
/* Choose a word of a setting in sysfs. @before gets the one in brackets, of 15 bytes. */
bool choose_setting(const char *path, const char *word, char *before);

struct thp_settings;
/* Have khugepaged look at what is advised again and again, and fill as many holes as it can. */
void khugepaged_without_rest(struct thp_settings *settings);

/* The number after @key at the beginning of a line of @path, -1 if there is none. */
long read_number(const char *path, const char *key);

/*
 * The implementation of collapse_file() in use: "c" or "rust". NULL where the kernel
 * has only one.
 */
const char *implementation(void);
bool in_rust(void);
bool choose_implementation(const char *name);

/* What came of a collapse. */
struct outcome {
	int err;		/* errno of madvise(), or 0 */
	int events;		/* how often collapse_file() was called, -1 if not traced */
	char result[40];	/* of the last call, in the trace event's words */
	long index;		/* of the last call: page of the file */
	char first_result[40];	/* of the first call */
	long first_index;
};

/*
 * Begin and end the tracing of collapses, by an instance of its own. Without it, or
 * where there is no tracefs, events is -1.
 */
bool trace_begin(void);
void trace_end(void);

/* Stop tracing for a while, or go on. To end it frees hundreds of inodes a moment later. */
void trace_pause(bool pause);

/* Ask for a collapse once. The trace is that of the calling thread. */
struct outcome collapse_once(char *at);

/*
 * Ask until collapse_file() has been called, or had been EAGAIN for too long. What
 * madvise() looks at first may be in the way for a moment: references, for example.
 * Untraced, ask until it is not EAGAIN.
 */
struct outcome collapse(char *at);

/* The last call made by khugepaged for @mm_addr, false if there was none. */
bool traced_elsewhere(unsigned long addr, struct outcome *outcome);

/*
 * Commands to debugfs' collapse_file_inject, printf-like: 0 or an errno, ENOENT if the
 * kernel does not have it.
 */
int __printf(1, 2) inject(const char *command, ...);
bool inject_available(void);
/* What copies a page and can tell that it was poisoned, on x86. */
#define COPY	"copy_mc_enhanced_fast_string"
/* Whether it is what copies here, and is not armed: it is for CPUs with fast strings. */
bool inject_has_copy(void);
/* How often @function has been called since it was armed, -1 if it is not. */
long inject_calls(const char *function);
/* Is a task parked in @function? One that stalls may have ended that by itself. */
bool inject_is_parked(const char *function);
/* Wait until a task is parked in @function: false if that takes too long. */
bool inject_wait(const char *function);

/*
 * A collapse in a thread of its own that is parked in @function, for the calls from
 * @first on. Returns false, with nothing left running, if it does not get there.
 */
struct parked;
struct parked *collapse_parked(char *at, const char *function, const char *action,
			       unsigned int first);
struct outcome collapse_resume(struct parked *parked);
/* Wait until it is parked in another function: false if it was done before. */
bool parked_gets_to(struct parked *parked, const char *function);
/* For inject(): the thread that is parked. */
pid_t parked_tid(const struct parked *parked);

/*
 * What can be seen of NR_PAGES of a file from @offset on without changing it. hole,
 * resident: by SEEK_DATA and mincore().
 */
struct sight {
	bool hole[NR_PAGES], resident[NR_PAGES];
	uint64_t cached, dirty, writeback, evicted, recently_evicted;	/* cachestat() */
	long blocks;			/* st_blocks */
	long fs_free;			/* statfs() */
	long shmem, shmem_huge, file_huge;	/* meminfo, KiB */
	long memcg[3];			/* memory.stat: shmem, file_thp, shmem_thp */
};

/* A number of memory.stat of the cgroup that we are in, -1 if there is none. */
long memory_stat(const char *key);
void look(int fd, char *base, off_t offset, struct sight *sight);
/* NULL, or what differs. */
const char *looks_different(const struct sight *before, const struct sight *after);

#endif
