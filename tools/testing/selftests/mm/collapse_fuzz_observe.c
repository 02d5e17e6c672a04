// SPDX-License-Identifier: GPL-2.0
/*
 * Play a history for collapse_fuzz, and record the observable state.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kernel-page-flags.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
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

const struct counter vm_counters[NR_VM] = {
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
};

const struct counter cgroup_counters[NR_CGROUP] = {
	{ "file ", 0 },		/* must be the first one */
	{ "shmem ", VANISHES },
	{ "shmem_thp ", VANISHES },
	{ "file_thp ", VANISHES },
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

void play(const struct history *history, int impl, struct observed *seen)
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

void count_from_here(void)
{
	sample_exactly(&counts_at_start);
	counts_first = counts_at_start;
	counts_now = counts_at_start;
}

bool nothing_leaked(void)
{
	const char *leaked;

	counts_at_start = counts_first;
	sample_exactly(&counts_now);
	leaked = leaks();
	if (leaked)
		printf("# leak of %s over all cases\n", leaked);
	return !leaked;
}
