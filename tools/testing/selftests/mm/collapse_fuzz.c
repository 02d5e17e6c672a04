// SPDX-License-Identifier: GPL-2.0
/*
 * Compare collapse_file() in C and in Rust with random operations.
 *
 * A case is a random history: a list of operations on a file, some of which are collapses.
 * The fuzzer plays it twice, with new files, once for each implementation. The observable
 * state of the two files must be equal. If it differs, the fuzzer minimises the history and
 * prints it in the format of -r.
 *
 * Reclaim, other CPUs and the disk also affect the pages. A difference therefore only counts
 * if several tries with C are alike, and none of them is like a try with Rust.
 *
 * With "-m concurrent", many threads use one file while the implementation changes. There is
 * nothing to compare then, but no data may be lost.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kernel-page-flags.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "collapse_file_util.h"
#include "collapse_fuzz.h"

#ifndef __NR_cachestat
#define __NR_cachestat 451
#endif

/* This flag is not part of the user space API. */
#ifndef KPF_MLOCKED
#define KPF_MLOCKED	33
#endif

#define TRIES		 6
#define MINIMISE_SECONDS 120
#define MAX_DIFFERENCES	 5

const char * const impls[] = { [C] = "c", [RUST] = "rust" };
const char *disk;
char base_dir[64], cgroup[128];
bool stop;
bool sabotage;
bool ask_for_trouble;

static unsigned int have;		/* the requirements that the machine meets */
static char old_cgroup[256];
static const char *self, *implementation_before;

/*
 * The observable state, recorded after a history is played.
 */
#define VANISHES	1	/* returns to the value before the file existed */
#define EACH_TRY	2	/* grows by one for each try of a collapse */

static const struct counter {
	const char *name;
	unsigned int flags;
} vm_counters[] = {
	{ "nr_shmem ", VANISHES },
	{ "nr_shmem_hugepages ", VANISHES },
	{ "nr_shmem_pmdmapped ", VANISHES },
	{ "nr_file_hugepages ", VANISHES },
	{ "nr_file_pmdmapped ", VANISHES },
	{ "nr_mapped ", 0 },
	{ "nr_mlock ", VANISHES },
	{ "nr_isolated_anon ", VANISHES },
	{ "nr_isolated_file ", VANISHES },
	{ "thp_collapse_alloc ", EACH_TRY },
	{ "thp_collapse_alloc_failed ", 0 },
	{ "thp_split_page ", 0 },
}, cgroup_counters[] = {
	{ "file ", 0 },		/* must be the first one */
	{ "shmem ", VANISHES },
	{ "shmem_thp ", VANISHES },
	{ "file_thp ", VANISHES },
};

#define NR_VM		ARRAY_SIZE(vm_counters)
#define NR_CGROUP	ARRAY_SIZE(cgroup_counters)

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

/* Record an error. Only the first one is kept. */
static __printf(2, 3) void note(struct observed *seen, const char *format, ...)
{
	va_list args;

	if (seen->wrong[0])
		return;
	va_start(args, format);
	vsnprintf(seen->wrong, sizeof(seen->wrong), format, args);
	va_end(args);
}

static void clean_up(void);

__noreturn void bail_out(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	clean_up();
	exit(KSFT_FAIL);
}

/*
 * Counters.
 */
static struct counts counts_first, counts_at_start, counts_now;

/*
 * Bytes of failed memory. A folio loses its cgroup when its memory fails. The counters of the
 * cgroup therefore do not decrease when the folio leaves the page cache.
 */
static long uncharged;

static void read_counters(const char *path, const struct counter *counters, size_t nr, long *values)
{
	static char text[16384];
	int fd = open(path, O_RDONLY);
	size_t len = 0;
	ssize_t more;

	if (fd < 0)
		return;
	while ((more = read(fd, text + len, sizeof(text) - 1 - len)) > 0)
		len += more;
	close(fd);
	text[len] = '\0';
	for (char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		for (size_t i = 0; i < nr; i++) {
			size_t key = strlen(counters[i].name);

			if (!strncmp(line, counters[i].name, key))
				values[i] = strtol(line + key, NULL, 10);
		}
	}
}

static void sample(struct counts *counts)
{
	char path[160];

	memset(counts, 0, sizeof(*counts));
	write_text("/proc/sys/vm/stat_refresh", "1");
	read_counters("/proc/vmstat", vm_counters, NR_VM, counts->vm);
	if (!cgroup[0])
		return;
	snprintf(path, sizeof(path), "%s/memory.stat", cgroup);
	read_counters(path, cgroup_counters, NR_CGROUP, counts->cgroup);
}

/*
 * The counters of a cgroup are flushed after a certain number of changes, so make that many
 * changes.
 */
#define MUCH 192

static void sample_exactly(struct counts *counts)
{
	char *churn = mmap(NULL, MUCH * PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	munmap(churn, MUCH * PAGE);
	sample(counts);
}

/*
 * Record the state of the file. The steps that change it come last.
 */
#define FLAG(name)	(UINT64_C(1) << KPF_##name)
#define FLAGS_COMPARED	(FLAG(UPTODATE) | FLAG(DIRTY) | FLAG(MMAP) | FLAG(ANON) |	\
			 FLAG(SWAPBACKED) | FLAG(COMPOUND_HEAD) | FLAG(COMPOUND_TAIL) |	\
			 FLAG(HUGE) | FLAG(HWPOISON) | FLAG(THP) | FLAG(SLAB) |		\
			 FLAG(BUDDY) | FLAG(OFFLINE) | FLAG(LRU) | FLAG(UNEVICTABLE) |	\
			 FLAG(MLOCKED))
#define PFN(entry) ((entry) & ((1UL << 55) - 1))

static void look_at_file(struct twin *twin, struct observed *seen)
{
	struct cache_range range = { .offset = twin->start, .len = HUGE };
	off_t at = twin->start, end = twin->start + HUGE;
	struct statfs fs;
	struct stat st;

	while ((at = lseek(twin->fd, at, SEEK_DATA)) >= 0 && at < end) {
		off_t hole = lseek(twin->fd, at, SEEK_HOLE);

		for (; at < hole && at < end; at += PAGE)
			seen->data[(at - twin->start) / PAGE] = true;
	}
	mincore(twin->slots[0].at, HUGE, seen->resident);
	for (int page = 0; page < (int)NR_PAGES; page++)
		seen->resident[page] &= 1;
	syscall(__NR_cachestat, twin->fd, &range, &seen->cache, 0);
	/* This number depends on other reclaim since the eviction. */
	seen->cache.recently_evicted = 0;
	/* On a disk, the two files have different blocks, and the free space differs. */
	if (!twin->regular && !fstat(twin->fd, &st) && !fstatfs(twin->fd, &fs)) {
		seen->blocks = st.st_blocks;
		seen->fs_free = fs.f_bfree;
	}
}

static void look_at_counters(struct twin *twin, struct observed *seen)
{
	struct counts counts;

	sample(&counts);
	for (size_t i = 0; i < NR_VM; i++)
		seen->added.vm[i] = counts.vm[i] - counts_now.vm[i] -
				    (vm_counters[i].flags & EACH_TRY ? twin->nr_again : 0);
	counts_now = counts;
	/*
	 * Skip the cgroup counters after few changes, because they are not flushed then. "file"
	 * also counts swapped-out pages and the metadata of a disk.
	 */
	if (seen->cache.cached < MUCH || twin->nr_poisoned)
		return;
	for (size_t i = twin->regular || twin->paged_out; i < NR_CGROUP; i++)
		seen->added.cgroup[i] = counts.cgroup[i] - counts_at_start.cgroup[i];
}

static void look_at_folios(struct twin *twin, struct observed *seen)
{
	static int pagemap = -1, kpageflags = -1;
	char *at = twin->slots[0].at;
	uint64_t map[NR_PAGES] = {};

	if (pagemap < 0) {
		pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
		kpageflags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	}
	for (unsigned int page = 0; page < NR_PAGES; page++)
		if (seen->resident[page])
			touch_page(at + page * PAGE);
	drain_lru();
	if (pread(pagemap, map, sizeof(map), (uintptr_t)at / PAGE * 8) != sizeof(map))
		bail_out("pagemap");
	for (unsigned int page = 0, nr; page < NR_PAGES; page += nr) {
		nr = 1;
		if (!(map[page] >> 63))
			continue;
		while (page + nr < NR_PAGES && map[page + nr] >> 63 &&
		       PFN(map[page + nr]) == PFN(map[page]) + nr)
			nr++;
		if (pread(kpageflags, &seen->flags[page], nr * 8, PFN(map[page]) * 8) < 0)
			bail_out("kpageflags");
		for (unsigned int i = page; i < page + nr; i++)
			seen->flags[i] &= FLAGS_COMPARED;
	}
}

static void check_mapping(struct twin *twin, struct observed *seen, int nr_slot)
{
	struct slot *slot = &twin->slots[nr_slot];
	unsigned int nr = below_end(twin, slot->page, slot->nr);

	for (unsigned int page = slot->page; page < slot->page + nr; page++) {
		unsigned int version = private_versions[nr_slot][page];
		char *at = slot->at + (page - slot->page) * PAGE;
		uint64_t own = stamp(page, version);

		if (barred[nr_slot][page] && touch_page(at))
			note(seen, "page %u in mapping %d has lost its marker", page, nr_slot);
		if (version ? compare_page(at, (char *)&own, sizeof(own)) :
			      seen->resident[page] &&
			      compare_page(at, model + page * PAGE, PAGE))
			note(seen, "content of page %u in mapping %d", page, nr_slot);
	}
}

/* Write to some pages, so that check_mapping() finds a mapping that kept an old folio. */
static void write_a_little(struct twin *twin, struct observed *seen)
{
	unsigned int nr = below_end(twin, 0, NR_PAGES);

	twin->version++;
	for (unsigned int page = 3; page < nr; page += 61) {
		uint64_t value = stamp(page, twin->version);

		if (seen->resident[page] &&
		    pwrite(twin->fd, &value, sizeof(value), twin->start + page * PAGE) ==
		    sizeof(value))
			model_write(page * PAGE, (char *)&value, sizeof(value));
	}
}

/* Compare the content by read(). Skip mapped pages unless @all: check_mapping() has those. */
static void check_content(struct twin *twin, struct observed *seen, bool all)
{
	off_t size = size_of(twin) - twin->start;
	ssize_t got;
	size_t len;

	for (unsigned int page = 0; page < AREA_PAGES && (off_t)(page * PAGE) < size; page++) {
		if (!all && page < NR_PAGES && seen->flags[page])
			continue;
		len = size - page * PAGE < PAGE ? size - page * PAGE : PAGE;
		got = pread(twin->fd, buffer, len, twin->start + page * PAGE);
		if (got < 0 && errno == EIO && page < NR_PAGES && broken[page])
			continue;
		if (got != (ssize_t)len)
			note(seen, "read() of page %u: %s", page, strerror(errno));
		if (memcmp(buffer, model + page * PAGE, len))
			note(seen, "content of page %u by read()", page);
	}
}

/* A dirty page without a dirty flag loses its data when it is reclaimed. */
static void check_reclaim(struct twin *twin, struct observed *seen)
{
	if (twin->slots[0].at)
		madvise(twin->slots[0].at, HUGE, MADV_PAGEOUT);
	check_content(twin, seen, true);
}

static void look_at_all(struct twin *twin, struct observed *seen)
{
	look_at_file(twin, seen);
	look_at_counters(twin, seen);
	look_at_folios(twin, seen);
	check_content(twin, seen, false);
	write_a_little(twin, seen);
	for (int i = 0; i < NR_SLOTS; i++)
		if (twin->slots[i].at)
			check_mapping(twin, seen, i);
	check_reclaim(twin, seen);
	/* The disk determines when a folio that is swapped out leaves the swap cache. */
	if (twin->paged_out)
		memset(seen->resident, 0, sizeof(seen->resident));
}

/*
 * Return the name of a counter that has not returned to its old value after all is closed.
 * Retry, because a folio in an LRU batch is freed later.
 */
static const char *leaks(void)
{
	const char *name;

	for (int tries = 0; tries < 20; tries++) {
		name = NULL;
		for (size_t i = 0; i < NR_VM; i++)
			if (vm_counters[i].flags & VANISHES &&
			    counts_now.vm[i] != counts_at_start.vm[i])
				name = vm_counters[i].name;
		for (size_t i = 0; i < NR_CGROUP; i++)
			if (cgroup_counters[i].flags & VANISHES &&
			    labs(counts_now.cgroup[i] - counts_at_start.cgroup[i]) > uncharged)
				name = cgroup_counters[i].name;
		if (!name)
			break;
		usleep(20000);
		sample_exactly(&counts_now);
	}
	return name;
}

static void play(const struct history *history, int impl, struct observed *seen)
{
	static const char *chosen;
	struct twin twin;
	const char *leaked;

	if (chosen != impls[impl] && !choose_implementation(impls[impl]))
		bail_out("choice of the implementation");
	chosen = impls[impl];
	memset(seen, 0, sizeof(*seen));
	begin_twin(&twin, history);
	twin.sabotaged = sabotage && impl == RUST;
	for (int i = 0; i < history->nr; i++) {
		const struct op *op = &history->ops[i];

		seen->errs[i] = op_kinds[op->kind].run(&twin, op->arg);
	}
	look_at_all(&twin, seen);
	memcpy(seen->outcomes, twin.outcomes, sizeof(seen->outcomes));
	seen->nr_collapses = twin.nr_collapses;
	end_twin(&twin);
	uncharged += twin.nr_poisoned * PAGE;
	sample(&counts_now);
	/* The counters of the cgroup are not flushed now, so leave them out. */
	memcpy(counts_now.cgroup, counts_at_start.cgroup, sizeof(counts_now.cgroup));
	leaked = leaks();
	if (leaked)
		note(seen, "leak of %s", leaked);
	/* Report a leak only once. */
	counts_at_start = counts_now;
}

/*
 * Compare. differs() describes the difference in one line.
 */
static char difference[320];

static __printf(1, 2) bool differs(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(difference, sizeof(difference), format, args);
	va_end(args);
	return true;
}

static void print_outcome(char *text, size_t len, const struct outcome *outcome)
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

static struct observed seen[2];

static bool play_both(const struct history *history)
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
static bool is_by_chance(const struct history *history)
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
 * Print and parse histories.
 */
static void print_history(const struct history *history, FILE *out)
{
	fprintf(out, "%s %s-first at:%u", kinds[history->kind].name,
		impls[history->rust_first ? RUST : C], history->at);
	for (int i = 0; i < history->nr; i++) {
		const struct op *op = &history->ops[i];
		const struct op_kind *kind = &op_kinds[op->kind];

		fprintf(out, " %s", kind->name);
		for (int arg = 0; arg < kind->nr_args; arg++) {
			fputc(arg ? ',' : ':', out);
			if (op_is(op, "fail") && !arg)
				fputs(failures[op->arg[0]].function, out);
			else
				fprintf(out, "%u", op->arg[arg]);
		}
	}
}

static bool parse_args(struct op *op, char *text)
{
	const struct op_kind *kind = &op_kinds[op->kind];

	for (int arg = 0; arg < kind->nr_args; arg++) {
		char *word = strsep(&text, ","), *rest;

		if (!word)
			return false;
		op->arg[arg] = strtoul(word, &rest, 10);
		if (op_is(op, "fail") && !arg)
			for (op->arg[0] = 0; strcmp(failures[op->arg[0]].function, word);) {
				if (++op->arg[0] == NR_FAILURES)
					return false;
			}
		else if (*rest || !*word)
			return false;
	}
	return !text;
}

static bool parse_op(struct history *history, char *word)
{
	struct op *op = &history->ops[history->nr];
	char *name = strsep(&word, ":");

	if (history->nr == MAX_OPS)
		return false;
	op->kind = op_named(name);
	if (op->kind < 0 || !parse_args(op, word))
		return false;
	history->nr++;
	return true;
}

static bool parse_history(struct history *history, const char *text)
{
	char *copy = strdup(text), *rest = copy, *word;
	bool right = true;

	memset(history, 0, sizeof(*history));
	history->kind = -1;
	for (int i = 0; right && (word = strsep(&rest, " ")); i++) {
		if (i == 0) {
			for (int kind = 0; kind < NR_KINDS; kind++)
				if (!strcmp(kinds[kind].name, word))
					history->kind = kind;
			right = history->kind >= 0;
		} else if (i == 1) {
			history->rust_first = !strcmp(word, "rust-first");
			right = history->rust_first || !strcmp(word, "c-first");
		} else if (i == 2) {
			right = sscanf(word, "at:%u", &history->at) == 1;
		} else if (*word) {
			right = parse_op(history, word);
		}
	}
	free(copy);
	return right && history->kind >= 0;
}

/*
 * Generate a random history.
 */
static bool has_op(const struct history *history, const char *name)
{
	for (int i = 0; i < history->nr; i++)
		if (op_is(&history->ops[i], name))
			return true;
	return false;
}

static bool may_have_large_folios(const struct history *history)
{
	return history->kind == TMPFS_HUGE || history->kind == ANON || has_op(history, "collapse");
}

static bool usable(const struct history *history, const struct op_kind *kind)
{
	unsigned int can = have | (history->kind == REGULAR ? DISK : SHMEM);

	/*
	 * Without the fix "mm/shmem: count all slots of a large swap entry", a kernel with XA_DEBUG
	 * hits a BUG when a large shmem folio that was swapped out comes back. collapse_file() is
	 * not the cause.
	 */
	if (history->kind == REGULAR || ask_for_trouble || !may_have_large_folios(history))
		can |= NO_LARGE_SHMEM;
	return !(kind->needs & ~can);
}

static void add(struct history *history, const char *name)
{
	struct op *op = &history->ops[history->nr++];

	memset(op, 0, sizeof(*op));
	op->kind = op_named(name);
	if (op_kinds[op->kind].make)
		op_kinds[op->kind].make(op->arg);
}

static void add_any(struct history *history)
{
	unsigned int sum = 0, at;

	for (int kind = 0; kind < nr_op_kinds; kind++)
		if (usable(history, &op_kinds[kind]))
			sum += op_kinds[kind].weight;
	at = below(sum);
	for (int kind = 0; kind < nr_op_kinds; kind++) {
		if (!usable(history, &op_kinds[kind]))
			continue;
		if (at < op_kinds[kind].weight) {
			add(history, op_kinds[kind].name);
			return;
		}
		at -= op_kinds[kind].weight;
	}
}

static void add_failure(struct history *history)
{
	struct op *op = &history->ops[history->nr++];
	unsigned int at, sum = 0;

	memset(op, 0, sizeof(*op));
	op->kind = op_named("fail");
	for (size_t i = 0; i < NR_FAILURES; i++)
		sum += failures[i].weight;
	do {
		op->arg[0] = 0;
		for (at = below(sum); at >= failures[op->arg[0]].weight;)
			at -= failures[op->arg[0]++].weight;
	} while (history->kind == REGULAR ? !failures[op->arg[0]].regular :
					    !failures[op->arg[0]].shmem);
	op_kinds[op->kind].make(op->arg);
}

/* Add the first content: a full range, one with regular holes, one write, or nothing. */
static void add_content(struct history *history)
{
	unsigned int what = below(100);

	if (what < 15) {
		unsigned int pages = 1 << (2 + below(8));

		add(history, "fill");
		history->ops[history->nr - 1].arg[0] = 0;
		history->ops[history->nr - 1].arg[1] = pages;
		history->ops[history->nr - 1].arg[2] = NR_PAGES / pages;
		history->ops[history->nr - 1].arg[3] = pages;
	} else if (what < 75) {
		add(history, "fill");
	} else if (what < 95) {
		add(history, "write");
	}
}

static int some_kind(void)
{
	unsigned int sum = 0, at;
	int kind = 0;

	for (int i = 0; i < NR_KINDS; i++)
		sum += i == REGULAR && !disk ? 0 : kinds[i].weight;
	for (at = below(sum); at >= kinds[kind].weight; kind++)
		at -= kinds[kind].weight;
	return kind;
}

static void add_collapse(struct history *history)
{
	if (have & LIMITS && history->kind != REGULAR && chance(6))
		add(history, "limit");
	else if (have & INJECTS && chance(30))
		add_failure(history);
	else if (have & INJECTS && chance(20))
		add(history, "meanwhile");
	add(history, "collapse");
}

static void generate(struct history *history, uint64_t seed)
{
	int collapses;

	seed_random(seed);
	memset(history, 0, sizeof(*history));
	history->kind = some_kind();
	history->rust_first = chance(50);
	history->at = history->kind == ANON || chance(60) ? 0 : chance(80) ? 1 : 1 + below(600);
	if (history->kind == ANON && have & KNOBS && chance(80))
		add(history, "knob");
	add_content(history);
	collapses = chance(65) ? 1 : chance(70) ? 2 : 3;
	for (int i = 0; i < collapses; i++) {
		for (int ops = below(i ? 7 : 11); ops; ops--)
			add_any(history);
		add_collapse(history);
	}
}

/*
 * Minimise a history that makes a difference.
 */
double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

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

static void minimise(struct history *history)
{
	double end = now() + MINIMISE_SECONDS;
	struct history shorter;

	for (int chunk = history->nr / 2; chunk; chunk /= 2)
		for (int first = history->nr - chunk; first >= 0 && now() < end && !stop;
		     first -= chunk)
			if (differs_without(history, first, chunk, &shorter))
				*history = shorter;
}

static void print_reproducer(const struct history *history, FILE *out)
{
	fprintf(out, "# reproduce: %s", self);
	if (disk)
		fprintf(out, " -d %s", disk);
	fputs(" -r \"", out);
	print_history(history, out);
	fputs("\"\n", out);
}

/*
 * Statistics.
 */
static struct {
	unsigned long cases, differences, transient, nr_results;
	struct {
		char name[48];
		unsigned long nr;
	} results[48];
} stats;

static void count(const struct outcome *outcome)
{
	const char *name = outcome->result;
	unsigned long i;

	if (outcome->events <= 0)
		name = outcome->err ? "not_called" : "already_huge";
	else if (!outcome->err)
		name = "succeeded";
	for (i = 0; i < stats.nr_results; i++)
		if (!strcmp(stats.results[i].name, name))
			break;
	if (i == stats.nr_results) {
		snprintf(stats.results[i].name, sizeof(stats.results[i].name), "%s", name);
		stats.nr_results++;
	}
	stats.results[i].nr++;
}

static void print_stats(void)
{
	for (unsigned long i = 0; i < stats.nr_results; i++)
		printf("# fuzz-result: %s=%lu\n", stats.results[i].name, stats.results[i].nr);
	printf("# fuzz: cases=%lu differences=%lu transient=%lu\n", stats.cases,
	       stats.differences, stats.transient);
}

/* Log the seed to the console, so that it is known if the kernel crashes. */
void tell_kernel(const char *what, unsigned long seed)
{
	char text[64];

	snprintf(text, sizeof(text), "<6>collapse_fuzz: %s %lu\n", what, seed);
	write_text("/dev/kmsg", text);
}

static void report(struct history *history, uint64_t seed)
{
	stats.differences++;
	printf("# difference: seed %lu: %s\n", (unsigned long)seed, difference);
	print_reproducer(history, stdout);
	fflush(stdout);
	minimise(history);
	/* The last difference may belong to a history that was too short, so play this one. */
	if (is_by_chance(history))
		printf("# not reproduced with this history:\n");
	printf("# minimised: %s\n", difference);
	print_reproducer(history, stdout);
}

static void fuzz_case(uint64_t seed)
{
	char first[sizeof(difference)];
	struct history history;

	tell_kernel("seed", seed);
	generate(&history, seed);
	stats.cases++;
	if (!play_both(&history)) {
		for (int i = 0; i < seen[C].nr_collapses; i++)
			count(&seen[C].outcomes[i]);
		return;
	}
	memcpy(first, difference, sizeof(first));
	if (is_by_chance(&history)) {
		stats.transient++;
		printf("# transient: seed %lu: %s\n", (unsigned long)seed, first);
	} else {
		report(&history, seed);
	}
}

static bool nothing_leaked(void)
{
	const char *leaked;

	counts_at_start = counts_first;
	sample_exactly(&counts_now);
	leaked = leaks();
	if (leaked)
		printf("# leak of %s over all cases\n", leaked);
	return !leaked;
}

static bool fuzz(uint64_t seed, unsigned long cases, unsigned long seconds)
{
	double start = now(), told = start;

	for (unsigned long i = 0; i < cases && stats.differences < MAX_DIFFERENCES && !stop; i++) {
		if (seconds && now() - start > seconds)
			break;
		fuzz_case(seed + i);
		if (now() - told > 10) {
			told = now();
			printf("# %lu cases, %.1f/s, %lu differences, %lu transient\n", stats.cases,
			       stats.cases / (told - start), stats.differences, stats.transient);
		}
		fflush(stdout);
	}
	print_stats();
	return !stats.differences && nothing_leaked();
}

static bool replay(const char *words)
{
	struct history history;
	char text[100];
	int times = 0;

	if (!parse_history(&history, words)) {
		printf("# not a history: %s\n", words);
		return false;
	}
	for (int tries = 0; tries < 3 && !stop; tries++) {
		bool different = play_both(&history);

		for (int i = 0; i < 2 * seen[C].nr_collapses; i++) {
			print_outcome(text, sizeof(text), &seen[i % 2].outcomes[i / 2]);
			printf("# %s: collapse %d: %s\n", impls[i % 2], i / 2 + 1, text);
		}
		printf("# %s\n", different ? difference : "no difference");
		times += different;
	}
	return !times;
}

/*
 * -T: inject a failure in Rust only. The fuzzer must find the difference and minimise the
 * history. The difference must come back after the history is printed and parsed.
 */
static char *history_text(const struct history *history)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	print_history(history, out);
	fclose(out);
	return text;
}

static bool test_self(uint64_t seed)
{
	struct history history, again;
	char *text;
	int nr;

	/*
	 * Find a history that makes no difference, and whose first collapse succeeds. A child or a
	 * concurrent operation could prevent the injected failure.
	 */
	do {
		generate(&history, seed++);
	} while (history.nr < 8 || has_op(&history, "child") || has_op(&history, "meanwhile") ||
		 play_both(&history) || seen[C].outcomes[0].err ||
		 seen[C].outcomes[0].events != 1 || play_both(&history));
	nr = history.nr;
	sabotage = true;
	if (!play_both(&history) || is_by_chance(&history)) {
		printf("# the difference was not found\n");
		return false;
	}
	printf("# %s\n", difference);
	minimise(&history);
	text = history_text(&history);
	printf("# %d operations, minimised: %s\n", nr, text);
	if (history.nr >= nr || !parse_history(&again, text) ||
	    strcmp(text, history_text(&again))) {
		printf("# the history is not shorter, or changes when it is printed and parsed\n");
		return false;
	}
	if (!play_both(&again)) {
		printf("# the difference did not come back\n");
		return false;
	}
	sabotage = false;
	return !play_both(&again);
}

/*
 * Prepare the machine, and undo that.
 */
static bool mount_tmpfs(int kind)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", base_dir, kinds[kind].name);
	return !mkdir(path, 0700) && !mount("none", path, "tmpfs", 0, kinds[kind].mount);
}

static void enter_cgroup(void)
{
	char path[160], line[200];
	FILE *file = fopen("/proc/self/cgroup", "r");

	snprintf(path, sizeof(path), "%s/cgroup", base_dir);
	if (mkdir(path, 0700) || mount("none", path, "cgroup2", 0, NULL))
		goto out;
	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, "0::", 3)) {
			line[strcspn(line, "\n")] = '\0';
			snprintf(old_cgroup, sizeof(old_cgroup), "%.60s%.150s/cgroup.procs", path,
				 line + 3);
		}
	snprintf(line, sizeof(line), "%.150s/cgroup.subtree_control", path);
	write_text(line, "+memory");
	snprintf(cgroup, sizeof(cgroup), "%.90s/collapse_fuzz.%d", path, getpid());
	snprintf(line, sizeof(line), "%.150s/cgroup.procs", cgroup);
	if (mkdir(cgroup, 0700) || write_text(line, "0")) {
		rmdir(cgroup);
		cgroup[0] = '\0';
	}
	if (cgroup[0]) {
		snprintf(path, sizeof(path), "%.120s/memory.stat", cgroup);
		if (access(path, R_OK))
			cgroup[0] = '\0';
	}
out:
	if (file)
		fclose(file);
	if (cgroup[0])
		have |= LIMITS;
	else
		printf("# no cgroup2 with memory: no limits, and no memory.stat\n");
}

static void clean_up(void)
{
	inject("off");
	if (implementation_before)
		choose_implementation(implementation_before);
	trace_end();
	if (cgroup[0]) {
		write_text(old_cgroup, "0");
		rmdir(cgroup);
	}
	if (base_dir[0]) {
		umount2(base_dir, MNT_DETACH);
		rmdir(base_dir);
	}
	fflush(stdout);
}

static void on_signal(__maybe_unused int signal)
{
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
}

static __noreturn void skip(const char *why)
{
	clean_up();
	ksft_exit_skip("%s\n", why);
}

static void learn_failures(void)
{
	have |= INJECTS;
	for (size_t i = 0; i < NR_FAILURES; i++) {
		int err = inject("%s fail", failures[i].function);

		if (err) {
			printf("# %s cannot fail: %s\n", failures[i].function, strerror(err));
			failures[i].weight = 0;
		}
	}
	inject("off");
}

static void learn_what_there_is(void)
{
	if (read_number("/proc/meminfo", "SwapTotal:") > 0)
		have |= SWAPS;
	else
		printf("# no swap: nothing is paged out\n");
	if (inject_available())
		learn_failures();
	else
		printf("# no collapse_file_inject: no failures are injected\n");
	if (!access("/sys/devices/system/node/node1", F_OK))
		have |= TWO_NODES;
	else
		printf("# one node: nothing is migrated\n");
	if (!access(SPLIT, W_OK))
		have |= SPLITS;
	if (!access(UNPOISON, W_OK))
		have |= POISONS;
	else
		printf("# no hwpoison-inject: no memory fails\n");
	if (!access(THP "hugepages-64kB/shmem_enabled", W_OK))
		have |= KNOBS;
}

/* Keep the pages of the program mapped, so that the counters do not depend on them. */
static void keep_program_mapped(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long start, end;
	char line[256], execute;

	/* Map all pages, and copy the writable ones. */
	mlockall(MCL_CURRENT);
	munlockall();
	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx r-%c", &start, &end, &execute) == 3 && strchr(line, '/'))
			mlock((void *)start, end - start);
	if (maps)
		fclose(maps);
}

static void prepare(void)
{
	struct sigaction action = { .sa_handler = on_bus, .sa_flags = SA_NODEFER };
	cpu_set_t cpus;
	int uffd;

	ksft_print_header();
	if (geteuid())
		skip("not root");
	implementation_before = implementation();
	if (!implementation_before)
		skip("the kernel has one implementation");
	uffd = open_sigbus_uffd();
	if (uffd < 0)
		skip("no userfaultfd with the features needed");
	close(uffd);
	if (!trace_begin())
		skip("no tracing");
	snprintf(base_dir, sizeof(base_dir), "/tmp/collapse_fuzz.XXXXXX");
	if (!mkdtemp(base_dir) || mount("none", base_dir, "tmpfs", 0, NULL))
		bail_out(base_dir);
	for (int kind = 0; kind < NR_KINDS; kind++)
		if (kinds[kind].mount && !mount_tmpfs(kind))
			bail_out(kinds[kind].name);
	enter_cgroup();
	learn_what_there_is();
	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	action = (struct sigaction) { .sa_handler = on_signal };
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	/* Run on one CPU, because LRU batches and page allocation depend on the CPU. */
	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	keep_program_mapped();
	memset(buffer, 'x', sizeof(buffer));
	sample_exactly(&counts_at_start);
	counts_first = counts_at_start;
	counts_now = counts_at_start;
}

static __noreturn void wrong_usage(void)
{
	fprintf(stderr,
		"usage: %s [-c CASES] [-s SEED] [-t SECONDS] [-d DIR] [-m concurrent | -r HISTORY | -T] [-x]\n"
		"  -c CASES       number of cases, or of rounds (200)\n"
		"  -s SEED        seed of the first case; each further one adds 1 (the time)\n"
		"  -t SECONDS     stop after that time (no limit)\n"
		"  -d DIR         also use regular files, in DIR\n"
		"  -m concurrent  use one file with many threads, instead of comparing two files\n"
		"  -r HISTORY     play a history, in the format printed for a difference\n"
		"  -T             test that the fuzzer finds a difference\n"
		"  -x             include operations that crash or hang a kernel without fixes\n",
		self);
	exit(2);
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 0);

	if (end == text || *end)
		wrong_usage();
	return value;
}

int main(int argc, char **argv)
{
	unsigned long cases = 200, seconds = 0;
	uint64_t seed = time(NULL);
	const char *history = NULL;
	bool self_test = false, concurrent = false, good;
	int option;

	self = argv[0];
	while ((option = getopt(argc, argv, "c:s:t:d:r:m:xT")) != -1) {
		switch (option) {
		case 'c':
			cases = number(optarg);
			break;
		case 's':
			seed = number(optarg);
			break;
		case 't':
			seconds = number(optarg);
			break;
		case 'd':
			disk = optarg;
			break;
		case 'r':
			history = optarg;
			break;
		case 'm':
			if (strcmp(optarg, "concurrent"))
				wrong_usage();
			concurrent = true;
			break;
		case 'x':
			ask_for_trouble = true;
			break;
		case 'T':
			self_test = true;
			break;
		default:
			wrong_usage();
		}
	}
	if (optind < argc)
		wrong_usage();
	prepare();
	ksft_set_plan(1);
	printf("# seed %lu\n", (unsigned long)seed);
	if (history)
		good = replay(history);
	else if (self_test)
		good = test_self(seed);
	else if (concurrent)
		good = fuzz_concurrently(seed, cases, seconds, disk);
	else
		good = fuzz(seed, cases, seconds);
	clean_up();
	ksft_test_result(good, "collapse_fuzz\n");
	ksft_finished();
}
