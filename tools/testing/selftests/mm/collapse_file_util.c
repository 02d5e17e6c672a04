// SPDX-License-Identifier: GPL-2.0
/* What the tests of collapse_file() share, except fault injection. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/kcov.h>
#include <linux/userfaultfd.h>

#include "collapse_file_util.h"
#include "hugepage_settings.h"

#ifndef __NR_cachestat
#define __NR_cachestat 451
#endif

#define IMPL	"/sys/kernel/mm/transparent_hugepage/khugepaged/collapse_file"
#define TRACING	"/sys/kernel/tracing/instances/collapse_file"
#define EVENT	TRACING "/events/huge_memory/mm_khugepaged_collapse_file/enable"

/* memory.stat may lack the updates of each CPU that are not flushed yet, up to this size. */
#define MEMCG_SLACK	((long)(192 * PAGE))

static char pattern(unsigned long page, unsigned long at)
{
	return (page * 13 + at * 7) % 255 + 1;
}

void write_page(char *base, unsigned long page)
{
	for (unsigned long at = 0; at < PAGE; at++)
		base[page * PAGE + at] = pattern(page, at);
}

bool page_is(const char *base, unsigned long page, bool hole)
{
	for (unsigned long at = 0; at < PAGE; at++)
		if (base[page * PAGE + at] != (hole ? 0 : pattern(page, at)))
			return false;
	return true;
}

bool is_hole(unsigned long page)
{
	return !(page % 8);
}

void fill(char *base, bool holes)
{
	for (unsigned long page = 0; page < NR_PAGES; page++)
		if (!holes || !is_hole(page))
			write_page(base, page);
}

bool content_is_right(const char *base, bool holes)
{
	for (unsigned long page = 0; page < NR_PAGES; page++)
		if (!page_is(base, page, holes && is_hole(page)))
			return false;
	return true;
}

char *map_range(int fd, off_t offset, int prot, int flags)
{
	char *area = mmap(NULL, 2 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *at = (char *)(((uintptr_t)area + HUGE - 1) & ~(HUGE - 1));

	if (area == MAP_FAILED)
		return NULL;
	munmap(area, at - area);
	munmap(at + HUGE, area + HUGE - at);
	at = mmap(at, HUGE, prot, flags | MAP_FIXED, fd, offset);
	return at == MAP_FAILED ? NULL : at;
}

int regular_file(const char **why)
{
	const char *dir = getenv("COLLAPSE_FILE_DIR");
	char *content, path[256];
	int fd;

	*why = "no COLLAPSE_FILE_DIR";
	if (!dir)
		return -1;
	*why = "no file can be written in COLLAPSE_FILE_DIR";
	snprintf(path, sizeof(path), "%s/collapse_file", dir);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	content = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (fd < 0 || content == MAP_FAILED)
		return -1;
	unlink(path);
	fill(content, false);
	for (unsigned long at = 0; at < HUGE; at += PAGE) {
		if (pwrite(fd, content + at, PAGE, at) != PAGE) {
			close(fd);
			fd = -1;
			break;
		}
	}
	munmap(content, HUGE);
	if (fd >= 0 && fsync(fd)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

int open_uffd(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_PAGEFAULT_FLAG_WP,
	};
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd >= 0 && ioctl(uffd, UFFDIO_API, &api)) {
		close(uffd);
		return -1;
	}
	return uffd;
}

int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC), err = 0;

	if (fd < 0)
		return errno;
	if (write(fd, text, strlen(text)) < 0)
		err = errno;
	close(fd);
	return err;
}

bool choose_setting(const char *path, const char *word, char *before)
{
	char text[100] = "";
	FILE *file = fopen(path, "r");

	if (!file)
		return false;
	if (before && fgets(text, sizeof(text), file) && strchr(text, '['))
		sscanf(strchr(text, '['), "[%15[^]]", before);
	fclose(file);
	return !write_text(path, word);
}

void khugepaged_without_rest(struct thp_settings *settings)
{
	settings->thp_enabled = THP_MADVISE;
	settings->khugepaged.defrag = true;
	settings->khugepaged.scan_sleep_millisecs = 0;
	settings->khugepaged.alloc_sleep_millisecs = 0;
	settings->khugepaged.pages_to_scan = 8 * NR_PAGES;
	settings->khugepaged.max_ptes_none = NR_PAGES - 1;
}

long read_number(const char *path, const char *key)
{
	FILE *file = fopen(path, "r");
	long number = -1;
	char line[256];

	if (!file)
		return -1;
	while (number < 0 && fgets(line, sizeof(line), file))
		if (!strncmp(line, key, strlen(key)))
			number = strtol(line + strlen(key), NULL, 10);
	fclose(file);
	return number;
}

const char *implementation(void)
{
	char text[32] = "";
	int fd = open(IMPL, O_RDONLY);
	ssize_t len;

	if (fd < 0)
		return NULL;
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	return len > 0 && strstr(text, "[rust]") ? "rust" : "c";
}

bool in_rust(void)
{
	const char *name = implementation();

	return name && !strcmp(name, "rust");
}

bool choose_implementation(const char *name)
{
	return !write_text(IMPL, name);
}

static int trace_fd = -1;

bool trace_begin(void)
{
	if (mkdir(TRACING, 0700) && errno != EEXIST)
		return false;
	write_text(TRACING "/buffer_size_kb", "64");
	if (write_text(EVENT, "1"))
		return false;
	trace_fd = open(TRACING "/trace_pipe", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return trace_fd >= 0;
}

void trace_pause(bool pause)
{
	write_text(EVENT, pause ? "0" : "1");
}

void trace_end(void)
{
	if (trace_fd < 0)
		return;
	close(trace_fd);
	trace_fd = -1;
	write_text(EVENT, "0");
	rmdir(TRACING);
}

static void parse(const char *line, struct outcome *outcome)
{
	const char *index = strstr(line, " index="), *result = strstr(line, " result=");

	if (!index || !result)
		return;
	outcome->events++;
	outcome->index = strtol(index + strlen(" index="), NULL, 10);
	snprintf(outcome->result, sizeof(outcome->result), "%s", result + strlen(" result="));
	if (outcome->events > 1)
		return;
	outcome->first_index = outcome->index;
	strcpy(outcome->first_result, outcome->result);
}

/* Read the trace, and add the calls by thread @tid or, if @tid is 0, those for @addr. */
static void read_trace(pid_t tid, unsigned long addr, struct outcome *outcome)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static char text[16384];
	char who[32], where[32];
	ssize_t len;

	snprintf(who, sizeof(who), "-%d ", tid);
	snprintf(where, sizeof(where), " addr=%lx,", addr);
	pthread_mutex_lock(&lock);
	while ((len = read(trace_fd, text, sizeof(text) - 1)) > 0) {
		char *rest = text;

		text[len] = '\0';
		for (char *line; (line = strsep(&rest, "\n")) && *line;)
			if (tid ? !!strstr(line, who) : !!strstr(line, where))
				parse(line, outcome);
	}
	pthread_mutex_unlock(&lock);
}

bool traced_elsewhere(unsigned long addr, struct outcome *outcome)
{
	memset(outcome, 0, sizeof(*outcome));
	if (trace_fd < 0)
		return false;
	read_trace(0, addr, outcome);
	return outcome->events;
}

/*
 * Coverage: with KCOV_OUT=FILE in the environment, the kernel addresses that a collapse
 * covers are appended to FILE in hexadecimal, one per line, each once.
 */
#define COVER_ENTRIES	(1024 * 1024UL)
#define TEXT_START	0xffffffff80000000UL
#define TEXT_SIZE	(64 * 1024 * 1024UL)

static __thread unsigned long *cover;
static __thread int cover_fd = -1;

static void cover_begin(void)
{
	if (!getenv("KCOV_OUT"))
		return;
	if (!cover) {
		cover_fd = open("/sys/kernel/debug/kcov", O_RDWR | O_CLOEXEC);
		if (cover_fd < 0 || ioctl(cover_fd, KCOV_INIT_TRACE, COVER_ENTRIES))
			return;
		cover = mmap(NULL, COVER_ENTRIES * sizeof(*cover), PROT_READ | PROT_WRITE,
			     MAP_SHARED, cover_fd, 0);
		if (cover == MAP_FAILED) {
			cover = NULL;
			return;
		}
	}
	ioctl(cover_fd, KCOV_ENABLE, KCOV_TRACE_PC);
	__atomic_store_n(&cover[0], 0, __ATOMIC_RELAXED);
}

static void cover_end(void)
{
	static unsigned char seen[TEXT_SIZE / 8];
	unsigned long count;
	char line[32];
	int out;

	if (!cover)
		return;
	count = __atomic_load_n(&cover[0], __ATOMIC_RELAXED);
	ioctl(cover_fd, KCOV_DISABLE, 0);
	/*
	 * Do not use a stream: to allocate its buffer this thread would wait for mmap_lock,
	 * which a parked thread may hold.
	 */
	out = open(getenv("KCOV_OUT"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (out < 0)
		return;
	for (unsigned long i = 1; i <= count; i++) {
		unsigned long at = cover[i] - TEXT_START;

		if (at >= TEXT_SIZE || seen[at / 8] & 0x80 >> at % 8)
			continue;
		seen[at / 8] |= 0x80 >> at % 8;
		if (write(out, line, snprintf(line, sizeof(line), "%lx\n", cover[i])) < 0)
			break;
	}
	close(out);
}

struct outcome collapse_once(char *at)
{
	struct outcome outcome = { .events = trace_fd < 0 ? -1 : 0 };

	cover_begin();
	outcome.err = madvise(at, HUGE, MADV_COLLAPSE) ? errno : 0;
	cover_end();
	if (trace_fd >= 0)
		read_trace(syscall(__NR_gettid), 0, &outcome);
	return outcome;
}

struct outcome collapse(char *at)
{
	struct outcome outcome;
	int tries = 40;

	do {
		outcome = collapse_once(at);
	} while (outcome.err == EAGAIN && outcome.events <= 0 && --tries && !usleep(50000));
	return outcome;
}

struct range_of_cache { uint64_t off, len; };

struct stat_of_cache { uint64_t cached, dirty, writeback, evicted, recently_evicted; };

long memory_stat(const char *key)
{
	char path[300], line[256] = "";
	FILE *file = fopen("/proc/self/cgroup", "r");

	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file) && strncmp(line, "0::", 3))
		;
	fclose(file);
	line[strcspn(line, "\n")] = '\0';
	snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.stat", line + 3);
	return read_number(path, key);
}

void look(int fd, char *base, off_t offset, struct sight *sight)
{
	struct range_of_cache range = { .off = offset, .len = HUGE };
	struct stat_of_cache cache = {};
	unsigned char resident[NR_PAGES];
	struct statfs fs;
	struct stat st;

	memset(sight, 0, sizeof(*sight));
	memset(resident, 0, sizeof(resident));
	mincore(base, HUGE, resident);
	for (unsigned long page = 0; page < NR_PAGES; page++) {
		off_t at = offset + page * PAGE;

		sight->hole[page] = lseek(fd, at, SEEK_DATA) != at;
		sight->resident[page] = resident[page] & 1;
	}
	syscall(__NR_cachestat, fd, &range, &cache, 0);
	sight->cached = cache.cached;
	sight->dirty = cache.dirty;
	sight->writeback = cache.writeback;
	sight->evicted = cache.evicted;
	sight->recently_evicted = cache.recently_evicted;
	/* statfs() before fstat(), because fstat() makes shmem recalculate its accounts. */
	if (!fstatfs(fd, &fs))
		sight->fs_free = fs.f_bfree;
	if (!fstat(fd, &st))
		sight->blocks = st.st_blocks;
	/* Flush the per-CPU counters. */
	write_text("/proc/sys/vm/stat_refresh", "1");
	sight->shmem = read_number("/proc/meminfo", "Shmem:");
	sight->shmem_huge = read_number("/proc/meminfo", "ShmemHugePages:");
	sight->file_huge = read_number("/proc/meminfo", "FileHugePages:");
	sight->memcg[0] = memory_stat("shmem ");
	sight->memcg[1] = memory_stat("file_thp ");
	sight->memcg[2] = memory_stat("shmem_thp ");
}

const char *looks_different(const struct sight *before, const struct sight *after)
{
	if (memcmp(before->hole, after->hole, sizeof(before->hole)))
		return "SEEK_DATA";
	if (memcmp(before->resident, after->resident, sizeof(before->resident)))
		return "mincore";
	if (before->cached != after->cached || before->dirty != after->dirty ||
	    before->writeback != after->writeback || before->evicted != after->evicted ||
	    before->recently_evicted != after->recently_evicted)
		return "cachestat";
	if (before->blocks != after->blocks)
		return "st_blocks";
	if (before->fs_free != after->fs_free)
		return "statfs";
	if (before->shmem != after->shmem)
		return "Shmem";
	if (before->shmem_huge != after->shmem_huge)
		return "ShmemHugePages";
	if (before->file_huge != after->file_huge)
		return "FileHugePages";
	for (int i = 0; i < 3; i++)
		if (labs(before->memcg[i] - after->memcg[i]) >= MEMCG_SLACK)
			return "memory.stat";
	return NULL;
}
