/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Declarations that the files of collapse_bench share.
 */
#ifndef _COLLAPSE_BENCH_H
#define _COLLAPSE_BENCH_H

#include <stdbool.h>
#include <sys/types.h>

#include "collapse_bench_util.h"

#define TRIES		20
#define MAX_OTHERS	63

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

/* The range that is collapsed, and its other users. */
struct range {
	int fd, uffd;
	char *base;
	char *aliases;		/* address of the other VMAs */
	pid_t others[MAX_OTHERS];
};

extern const char *dir;		/* for the files of scenarios on disk, or NULL */

/*
 * collapse_bench_range.c
 */
/* Wait for a tick, so that the time until the next one is as long as possible. */
void wait_for_tick(void);
/* Print the time of a number of instructions. */
void print_clock(void);
const char *name_of(const struct scenario *s);
/* Call before measure_floor(). */
void find_fast_strings(void);
/* Return the time to copy and clear the pages of a scenario. */
long measure_floor(const struct scenario *s);
void prepare(const struct scenario *s, struct range *r);
void write_pages(const struct scenario *s, struct range *r);
bool is_right(const struct scenario *s, const struct range *r);
void release(const struct scenario *s, struct range *r);
/* Collapse a range. Return 0 or an errno. */
int advise(const struct range *r);

/*
 * collapse_bench_bystander.c
 */
void run_bystander(const struct scenario *s, long rounds);

#endif
