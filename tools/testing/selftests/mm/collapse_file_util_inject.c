// SPDX-License-Identifier: GPL-2.0
/*
 * Fault injection for the tests of collapse_file(): functions that fail, and collapses that
 * are parked in a function.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "collapse_file_util.h"

#define INJECT	"/sys/kernel/debug/collapse_file_inject"

int inject(const char *command, ...)
{
	char text[128];
	va_list args;

	va_start(args, command);
	vsnprintf(text, sizeof(text), command, args);
	va_end(args);
	return write_text(INJECT, text);
}

bool inject_available(void)
{
	return !access(INJECT, W_OK);
}

bool inject_has_copy(void)
{
	FILE *file = fopen("/proc/cpuinfo", "r");
	char *line = NULL;
	size_t size = 0;
	bool has = false;

	if (!file)
		return false;
	while (!has && getline(&line, &size, file) > 0)
		has = !strncmp(line, "flags", 5) && strstr(line, " erms");
	free(line);
	fclose(file);
	return has && read_number(INJECT, COPY " off") >= 0;
}

long inject_calls(const char *function)
{
	char line[64];

	snprintf(line, sizeof(line), "%s armed", function);
	return read_number(INJECT, line);
}

bool inject_is_parked(const char *function)
{
	char line[64];

	snprintf(line, sizeof(line), "%s parked", function);
	return read_number(INJECT, line) >= 0;
}

bool inject_wait(const char *function)
{
	for (int tries = 0; tries < 3000; tries++) {
		if (inject_is_parked(function))
			return true;
		usleep(10000);
	}
	return false;
}

struct parked {
	pthread_t thread;
	char *at;
	const char *function, *action;
	unsigned int first;
	pid_t tid;
	bool done;
	struct outcome outcome;
};

static void *run_parked(void *arg)
{
	struct parked *parked = arg;

	parked->tid = syscall(__NR_gettid);
	if (!inject("%s %s %u", parked->function, parked->action, parked->first))
		parked->outcome = collapse_once(parked->at);
	__atomic_store_n(&parked->done, true, __ATOMIC_RELEASE);
	return NULL;
}

bool parked_gets_to(struct parked *parked, const char *function)
{
	while (!inject_is_parked(function)) {
		if (__atomic_load_n(&parked->done, __ATOMIC_ACQUIRE))
			return false;
		usleep(1000);
	}
	return true;
}

struct parked *collapse_parked(char *at, const char *function, const char *action,
			       unsigned int first)
{
	struct parked *parked = calloc(1, sizeof(*parked));

	if (!parked)
		return NULL;
	*parked = (struct parked) {
		.at = at, .function = function, .action = action, .first = first,
	};
	/* madvise() may fail with EAGAIN before it calls collapse_file(). */
	for (int tries = 0; tries < 40; tries++) {
		parked->done = false;
		if (pthread_create(&parked->thread, NULL, run_parked, parked))
			break;
		if (parked_gets_to(parked, function))
			return parked;
		pthread_join(parked->thread, NULL);
		if (parked->outcome.err != EAGAIN || parked->outcome.events > 0)
			break;
		usleep(50000);
	}
	inject("%s off", function);
	free(parked);
	return NULL;
}

struct outcome collapse_resume(struct parked *parked)
{
	struct outcome outcome;

	inject("%s off", parked->function);
	pthread_join(parked->thread, NULL);
	outcome = parked->outcome;
	free(parked);
	return outcome;
}

pid_t parked_tid(const struct parked *parked)
{
	return parked->tid;
}
