/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shared by the tests of collapse_file(). The functions here trigger a collapse and read
 * its result, inject failures and waits, and record the observable state of a file.
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

/* The default of 30 seconds is too short under emulation, next to other tests. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 120

#define PAGE		4096UL
#define HUGE		(2UL << 20)
#define NR_PAGES	(HUGE / PAGE)

/* Write or check the content of a page. It depends on the page, and has no zero bytes. */
void write_page(char *base, unsigned long page);
bool page_is(const char *base, unsigned long page, bool hole);

/* Fill or check a range. With @holes, the first of each eight pages is a hole. */
bool is_hole(unsigned long page);
void fill(char *base, bool holes);
bool content_is_right(const char *base, bool holes);

/* Map HUGE bytes of a file, at an address that is aligned for a huge page. */
char *map_range(int fd, off_t offset, int prot, int flags);

/*
 * Create a file in COLLAPSE_FILE_DIR with the content of fill(), written back, in small
 * folios. The file is unlinked, so it goes away with the test. Return -1 and set @why if
 * there is no such directory.
 */
int regular_file(const char **why);

/* Open a userfaultfd with the features that the tests use. Return -1 if that fails. */
int open_uffd(void);

/* Write @text to a file. Return 0 or an errno. */
int write_text(const char *path, const char *text);
/*
 * Select a word of a setting in sysfs. @before, of 16 bytes, gets the word that was
 * selected before, which the setting has in brackets.
 */
bool choose_setting(const char *path, const char *word, char *before);

struct thp_settings;
/* Let khugepaged scan MADV_HUGEPAGE ranges without a pause, whatever holes they have. */
void khugepaged_without_rest(struct thp_settings *settings);

/* Return the number after @key at the beginning of a line of @path, or -1. */
long read_number(const char *path, const char *key);

/*
 * Return the implementation of collapse_file() in use, "c" or "rust". Return NULL if the
 * kernel has only one.
 */
const char *implementation(void);
bool in_rust(void);
bool choose_implementation(const char *name);

/* The outcome of madvise(MADV_COLLAPSE). */
struct outcome {
	int err;		/* errno of madvise(), or 0 */
	int events;		/* number of calls of collapse_file(), -1 if not traced */
	char result[40];	/* of the last call, as in the trace event */
	long index;		/* of the last call, as in the trace event */
	char first_result[40];	/* of the first call */
	long first_index;
};

/*
 * Start and stop tracing of collapses, in a separate trace instance. Without a trace,
 * struct outcome has -1 events.
 */
bool trace_begin(void);
void trace_end(void);

/* Pause or resume tracing. Unlike trace_end(), this does not free hundreds of inodes. */
void trace_pause(bool pause);

/* Call madvise(MADV_COLLAPSE) once. The outcome has the events of the calling thread. */
struct outcome collapse_once(char *at);

/*
 * Call madvise(MADV_COLLAPSE) until collapse_file() is called, or until the number of
 * attempts is used up. Checks before that call may fail temporarily with EAGAIN, for
 * example because of a reference. Without a trace, retry while the error is EAGAIN.
 */
struct outcome collapse(char *at);

/* Read the calls that any task made for @addr. Return false if there is none. */
bool traced_elsewhere(unsigned long addr, struct outcome *outcome);

/*
 * Write a command to collapse_file_inject in debugfs, with a printf() format. Return 0 or
 * an errno. It is ENOENT if the kernel does not have the file or the function.
 */
int __printf(1, 2) inject(const char *command, ...);
bool inject_available(void);
/* The x86 function that copies a page and detects poison, on CPUs with fast strings. */
#define COPY	"copy_mc_enhanced_fast_string"
/* Return whether COPY copies pages on this CPU, and is not armed. */
bool inject_has_copy(void);
/* Return the number of calls of @function since it was armed, or -1 if it is not armed. */
long inject_calls(const char *function);
/* Return whether a task is parked or stalls in @function. A stall may end by itself. */
bool inject_is_parked(const char *function);
/* Wait until a task is parked in @function. Return false on a timeout. */
bool inject_wait(const char *function);

/*
 * Start a collapse in a new thread and wait until it is parked in call number @first of
 * @function. Return NULL, with no thread running, if it does not get there.
 */
struct parked;
struct parked *collapse_parked(char *at, const char *function, const char *action,
			       unsigned int first);
struct outcome collapse_resume(struct parked *parked);
/* Wait until the thread is parked in @function. Return false if it ends before that. */
bool parked_gets_to(struct parked *parked, const char *function);
/* Return the thread ID, for inject(). */
pid_t parked_tid(const struct parked *parked);

/*
 * The observable state of NR_PAGES of a file. look() records it for the pages from @offset
 * on, without changing them.
 */
struct sight {
	bool hole[NR_PAGES], resident[NR_PAGES];	/* SEEK_DATA, mincore() */
	uint64_t cached, dirty, writeback, evicted, recently_evicted;	/* cachestat() */
	long blocks;			/* st_blocks */
	long fs_free;			/* statfs() */
	long shmem, shmem_huge, file_huge;	/* meminfo, KiB */
	long memcg[3];			/* memory.stat: shmem, file_thp, shmem_thp */
};

/* Return a number in memory.stat of the cgroup of this process, or -1. */
long memory_stat(const char *key);
void look(int fd, char *base, off_t offset, struct sight *sight);
/* Return the name of the first field that differs, or NULL. */
const char *looks_different(const struct sight *before, const struct sight *after);

#endif
