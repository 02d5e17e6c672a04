// SPDX-License-Identifier: GPL-2.0
/*
 * Compare what collapse_fuzz observes with C and with Rust, and minimise a history that makes
 * a difference.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collapse_file_util.h"
#include "collapse_fuzz.h"

#define TRIES		 6
#define MINIMISE_SECONDS 120

/*
 * Compare. differs() describes the difference in one line.
 */
char difference[DIFFERENCE_LEN];

static __printf(1, 2) bool differs(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(difference, sizeof(difference), format, args);
	va_end(args);
	return true;
}

void print_outcome(char *text, size_t len, const struct outcome *outcome)
{
	snprintf(text, len, "errno %d, %d events, %s at %ld", outcome->err, outcome->events,
		 outcome->events > 0 ? outcome->result : "-", outcome->index);
}

static bool outcomes_differ(const struct observed *c, const struct observed *rust)
{
	char one[100], other[100];

	for (int i = 0; i < c->nr_collapses; i++) {
		print_outcome(one, sizeof(one), &c->outcomes[i]);
		print_outcome(other, sizeof(other), &rust->outcomes[i]);
		if (strcmp(one, other))
			return differs("collapse %d: c: %s; rust: %s", i + 1, one, other);
	}
	return false;
}

static bool folios_differ(const struct observed *c, const struct observed *rust)
{
	for (unsigned int page = 0; page < NR_PAGES; page++)
		if (c->flags[page] != rust->flags[page])
			return differs("flags of page %u: c: %#lx; rust: %#lx", page,
				       (long)c->flags[page], (long)rust->flags[page]);
	return false;
}

static bool counters_differ(const struct observed *c, const struct observed *rust)
{
	for (size_t i = 0; i < NR_VM; i++)
		if (c->added.vm[i] != rust->added.vm[i])
			return differs("%s: c: %+ld; rust: %+ld", vm_counters[i].name,
				       c->added.vm[i], rust->added.vm[i]);
	for (size_t i = 0; i < NR_CGROUP; i++)
		if (c->added.cgroup[i] != rust->added.cgroup[i])
			return differs("cgroup's %s: c: %+ld; rust: %+ld", cgroup_counters[i].name,
				       c->added.cgroup[i], rust->added.cgroup[i]);
	return false;
}

static bool files_differ(const struct observed *c, const struct observed *rust)
{
	if (memcmp(c->data, rust->data, sizeof(c->data)))
		return differs("SEEK_DATA");
	if (memcmp(c->resident, rust->resident, sizeof(c->resident)))
		return differs("mincore()");
	if (memcmp(&c->cache, &rust->cache, sizeof(c->cache)))
		return differs("cachestat(): c: %lu, %lu dirty, %lu evicted; rust: %lu, %lu, %lu",
			       c->cache.cached, c->cache.dirty, c->cache.evicted,
			       rust->cache.cached, rust->cache.dirty, rust->cache.evicted);
	if (c->blocks != rust->blocks || c->fs_free != rust->fs_free)
		return differs("blocks: c: %ld, %ld free; rust: %ld, %ld", c->blocks, c->fs_free,
			       rust->blocks, rust->fs_free);
	return false;
}

/*
 * The scan for C refuses a page that is in use. The scan for Rust leaves that check to
 * collapse_file(), which may read and swap in pages first. Both fail, but the files then have
 * different pages in memory.
 */
static bool refused_by_scan_for_c(const struct observed *c, const struct observed *rust)
{
	for (int i = 0; i < c->nr_collapses; i++)
		if (c->outcomes[i].err == EAGAIN && !c->outcomes[i].events &&
		    rust->outcomes[i].err && rust->outcomes[i].events > 0)
			return true;
	return false;
}

/*
 * C allocates each missing node to fill its holes, and fails if there is no memory. Rust stores
 * one entry in place of the node.
 */
static bool only_c_lacks_memory(const struct observed *c, const struct observed *rust)
{
	for (int i = 0; i < c->nr_collapses; i++)
		if (c->outcomes[i].events > 0 && !strcmp(c->outcomes[i].result, "store_failed") &&
		    strcmp(rust->outcomes[i].result, "store_failed"))
			return true;
	return false;
}

static bool compare(const struct history *history, const struct observed *c,
		    const struct observed *rust)
{
	if (c->wrong[0] || rust->wrong[0])
		return differs("c: %s; rust: %s", c->wrong[0] ? c->wrong : "right",
			       rust->wrong[0] ? rust->wrong : "right");
	if (refused_by_scan_for_c(c, rust) || only_c_lacks_memory(c, rust))
		return false;
	if (outcomes_differ(c, rust))
		return true;
	for (int i = 0; i < history->nr; i++)
		if (c->errs[i] != rust->errs[i])
			return differs("operation %d, %s: c: errno %d; rust: errno %d", i + 1,
				       op_kinds[history->ops[i].kind].name, c->errs[i],
				       rust->errs[i]);
	return files_differ(c, rust) || folios_differ(c, rust) || counters_differ(c, rust);
}

struct observed seen[2];

bool play_both(const struct history *history)
{
	int first = history->rust_first ? RUST : C;

	play(history, first, &seen[first]);
	play(history, !first, &seen[!first]);
	return compare(history, &seen[C], &seen[RUST]);
}

/*
 * Return whether a difference is by chance. It is if a try with C is like one with Rust, or
 * unlike another one with C.
 */
bool is_by_chance(const struct history *history)
{
	static struct observed all[2][TRIES];

	for (int last = 0; last < TRIES && !stop; last++) {
		play(history, C, &all[C][last]);
		play(history, RUST, &all[RUST][last]);
		if (last && !all[C][last].wrong[0] && !all[C][last - 1].wrong[0] &&
		    compare(history, &all[C][last], &all[C][last - 1]))
			return true;
		for (int other = 0; other <= last; other++)
			if (!compare(history, &all[C][last], &all[RUST][other]) ||
			    !compare(history, &all[C][other], &all[RUST][last]))
				return true;
	}
	/* Do not count the difference if the user stopped the fuzzer here. */
	return stop;
}

/*
 * Minimise a history that makes a difference.
 */
static bool differs_without(const struct history *history, int first, int nr,
			    struct history *shorter)
{
	*shorter = *history;
	memmove(&shorter->ops[first], &shorter->ops[first + nr],
		(history->nr - first - nr) * sizeof(struct op));
	shorter->nr -= nr;
	/* Play twice, because a difference may be by chance. */
	return play_both(shorter) && play_both(shorter);
}

void minimise(struct history *history)
{
	double end = now() + MINIMISE_SECONDS;
	struct history shorter;

	for (int chunk = history->nr / 2; chunk; chunk /= 2)
		for (int first = history->nr - chunk; first >= 0 && now() < end && !stop;
		     first -= chunk)
			if (differs_without(history, first, chunk, &shorter))
				*history = shorter;
}
