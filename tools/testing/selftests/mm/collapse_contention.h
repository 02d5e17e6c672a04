/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Declarations that the files of collapse_contention share.
 */
#ifndef _COLLAPSE_CONTENTION_H
#define _COLLAPSE_CONTENTION_H

#include <semaphore.h>
#include <stdbool.h>

#include "collapse_bench_util.h"

#define MAX_USERS	2
#define MAX_OPS		4
#define NR_MODES	15

/* The file, its mapping that is collapsed, and the mapping of the users. */
extern struct used_range {
	int fd;
	char *base, *alias;
} range;

/* Shared by the task that collapses and the users, which may be processes. */
extern struct shared {
	sem_t begin, end;
	/*
	 * Users work unless the phase is REST. An operation overlaps with the try unless the
	 * phase is READY at its beginning and at its end.
	 */
	enum { REST, READY, TRY } phase;
	int working;
	bool stop;
	long longest[MAX_USERS][MAX_OPS];
} *shared;

extern const struct mode {
	const char *name;
	void (*use)(int op, unsigned long page);
	const char *ops[MAX_OPS];	/* operations by turns; if none, one with the mode's name */
	int users;
	bool rests;		/* the users pause after each ROUND operations */
	bool alias;		/* the users have a separate mapping */
	bool collapses;		/* the users collapse the range */
	bool processes;		/* 256 processes map the file, and the user is a process */
} modes[NR_MODES];

/* The mode that is measured. */
extern const struct mode *mode;

/* Return the number of operations of a user in this mode. */
int nr_ops(void);
/* A thread of a user. */
void *stand_by(void *user);

#endif
