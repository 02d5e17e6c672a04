// SPDX-License-Identifier: GPL-2.0
/*
 * Show collapse_file() in C and in Rust.
 *
 * Each scenario prepares 2 MiB of a file, prints a map of the page cache, collapses
 * the range and prints the map again. The letters are those of pcmap. The content is
 * compared byte for byte.
 *
 * The demo needs root, swap space, tracefs, CONFIG_RUST_COLLAPSE_FILE and
 * CONFIG_SAMPLE_RUST_PAGE_CACHE_MAP. The only argument is a directory on ext4 or xfs.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#include "pcmap.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define PAGE		4096UL
#define HUGE		(2UL << 20)
#define NR_PAGES	(HUGE / PAGE)
#define HUGE_ORDER	9
#define IMPL		"/sys/kernel/mm/transparent_hugepage/khugepaged/collapse_file"
#define TRACING		"/sys/kernel/tracing/"
#define EVENT		TRACING "events/huge_memory/mm_khugepaged_collapse_file/enable"

struct outcome {
	bool ok;
	char text[256];
};

static char *base;		/* where the file is mapped, aligned */
static char expected[HUGE];	/* the expected content */
static char map_before[NR_PAGES], map_after[NR_PAGES];
static int device, trace_fd;

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		err(1, "cannot write %s to %s", text, path);
	close(fd);
}

static void page_cache_map(int fd, char *map)
{
	const struct page_cache_map_entry *entry;
	static struct pcmap cache;

	memset(map, '.', NR_PAGES);
	pcmap_begin(&cache, device, fd, 0, NR_PAGES);
	while ((entry = pcmap_next(&cache)))
		memset(map + entry->index, pcmap_letter(&cache, entry, HUGE_ORDER),
		       entry->nr_pages);
	if (errno)
		err(1, PCMAP_DEVICE);
}

static void print_map(const char *name, const char *map)
{
	for (unsigned long i = 0; i < NR_PAGES; i += 64)
		printf("  %-8s%.64s\n", i ? "" : name, map + i);
}

static void fill(char *page, unsigned long i)
{
	for (unsigned long at = 0; at < PAGE; at++)
		page[at] = (char)(i * 31 + at * 7 + 1);
}

static void map_file(int fd, int prot)
{
	char *area = mmap(NULL, 2 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (area == MAP_FAILED)
		err(1, "mmap");
	base = (char *)(((uintptr_t)area + HUGE - 1) & ~(HUGE - 1));
	if (mmap(base, HUGE, prot, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		err(1, "mmap of the file");
}

static void forget_trace(void)
{
	char buf[4096];

	while (read(trace_fd, buf, sizeof(buf)) > 0)
		;
}

/* Read the result of the last collapse from the trace. */
static void traced_result(char *result, size_t size)
{
	char buf[4096] = "";
	char *at, *last = NULL;
	ssize_t len = 0, got;

	while ((got = read(trace_fd, buf + len, sizeof(buf) - 1 - len)) > 0)
		len += got;
	buf[len] = 0;
	for (at = buf; (at = strstr(at, " result=")); at++)
		last = at + strlen(" result=");
	snprintf(result, size, "%.*s", last ? (int)strcspn(last, "\n") : 0, last ?: "");
}

/* Collapse the range and print the result. Return the errno of madvise(), or 0. */
static int collapse(struct outcome *outcome)
{
	char result[64];
	int err, tries = 20;

	/*
	 * EAGAIN is a temporary failure. For example, another CPU has not put new
	 * folios on the LRU yet.
	 */
	do {
		forget_trace();
		err = madvise(base, HUGE, MADV_COLLAPSE) ? errno : 0;
		traced_result(result, sizeof(result));
		printf("  madvise(MADV_COLLAPSE) = %s; trace: result=%s\n",
		       err ? strerrorname_np(err) : "0", result);
	} while (err == EAGAIN && --tries && !usleep(100000));

	snprintf(outcome->text, sizeof(outcome->text), "%s, %s",
		 err ? strerrorname_np(err) : "0", result);
	return err;
}

/* Return whether all pages are huge and have the expected content. */
static bool check_collapsed(int fd)
{
	unsigned long huge = 0, wrong = 0;
	char *copy = malloc(HUGE);

	page_cache_map(fd, map_after);
	print_map("after", map_after);
	for (unsigned long i = 0; i < NR_PAGES; i++)
		huge += map_after[i] == 'H';
	if (!copy || pread(fd, copy, HUGE, 0) != (ssize_t)HUGE)
		err(1, "cannot read the file back");
	for (unsigned long at = 0; at < HUGE; at++)
		wrong += (copy[at] != expected[at]) + (base[at] != expected[at]);
	free(copy);
	printf("  %lu of %lu pages huge; %lu bytes compared, by read() and mmap(): %lu differ\n",
	       huge, NR_PAGES, HUGE, wrong);
	return huge == NR_PAGES && !wrong;
}

static void count_map(const char *map)
{
	unsigned long n[128] = {};

	for (unsigned long i = 0; i < NR_PAGES; i++)
		n[(unsigned char)map[i]]++;
	printf("  %lu small, %lu holes, %lu swapped out, %lu allocated and never written\n",
	       n['4'], n['.'], n['s'], n['f']);
}

static int new_memfd(void)
{
	int fd = memfd_create("demo", 0);

	if (fd < 0 || ftruncate(fd, HUGE))
		err(1, "memfd_create");
	memset(expected, 0, sizeof(expected));
	map_file(fd, PROT_READ | PROT_WRITE);
	return fd;
}

static void write_page(unsigned long i)
{
	fill(base + i * PAGE, i);
	fill(expected + i * PAGE, i);
}

static struct outcome scenario_mixed(const char *dir)
{
	struct outcome outcome = {};
	int fd = new_memfd();
	unsigned long i;

	(void)dir;
	/* Groups of 8: small pages, pages to swap out, pages to allocate, holes. */
	for (i = 0; i < NR_PAGES; i++)
		if (i / 8 % 4 < 2)
			write_page(i);
	for (i = 8; i < NR_PAGES; i += 32)
		if (madvise(base + i * PAGE, 8 * PAGE, MADV_PAGEOUT))
			err(1, "madvise(MADV_PAGEOUT)");
	for (i = 16; i < NR_PAGES; i += 32)
		if (fallocate(fd, FALLOC_FL_KEEP_SIZE, i * PAGE, 8 * PAGE))
			err(1, "fallocate");

	page_cache_map(fd, map_before);
	print_map("before", map_before);
	count_map(map_before);
	outcome.ok = !collapse(&outcome) && check_collapsed(fd);
	munmap(base, HUGE);
	close(fd);
	return outcome;
}

static void *touch(void *at)
{
	/* The compiler cannot remove this read. */
	asm volatile ("" : : "r" (__atomic_load_n((char *)at, __ATOMIC_RELAXED)));
	return NULL;
}

/* Touch a hole. Return whether the userfaultfd gets the fault. */
static bool event_is_delivered(int uffd, char *hole)
{
	struct pollfd pollfd = { .fd = uffd, .events = POLLIN };
	struct uffdio_zeropage zero = {
		.range = { .start = (uintptr_t)hole, .len = PAGE },
	};
	struct uffd_msg msg = {};
	pthread_t thread;
	bool delivered;

	if (pthread_create(&thread, NULL, touch, hole))
		err(1, "pthread_create");
	delivered = poll(&pollfd, 1, 30000) == 1 && read(uffd, &msg, sizeof(msg)) == sizeof(msg) &&
		    msg.event == UFFD_EVENT_PAGEFAULT &&
		    (msg.arg.pagefault.address & ~(PAGE - 1)) == (uintptr_t)hole;
	if (delivered && ioctl(uffd, UFFDIO_ZEROPAGE, &zero))
		err(1, "UFFDIO_ZEROPAGE");
	if (delivered)
		pthread_join(thread, NULL);
	return delivered;
}

static struct outcome scenario_userfaultfd(const char *dir)
{
	struct outcome outcome = {}, second = {};
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg;
	int fd = new_memfd();
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	bool same, delivered;

	(void)dir;
	for (unsigned long i = 0; i < NR_PAGES; i++)
		if (i % 64 < 56)
			write_page(i);

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		err(1, "userfaultfd");
	reg = (struct uffdio_register){
		.range = { .start = (uintptr_t)base, .len = HUGE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		err(1, "UFFDIO_REGISTER");

	page_cache_map(fd, map_before);
	print_map("before", map_before);
	printf("  a userfaultfd waits for missing pages of the range\n");
	outcome.ok = collapse(&outcome) == EBUSY;
	page_cache_map(fd, map_after);
	same = !memcmp(map_before, map_after, NR_PAGES);
	printf("  the page cache is %s\n", same ? "as it was" : "CHANGED");
	delivered = event_is_delivered(uffd, base + 60 * PAGE);
	printf("  a touch of a hole %s\n", delivered ? "delivers its event" : "delivers NO event");
	outcome.ok = outcome.ok && same && delivered;

	close(uffd);
	if (outcome.ok) {
		printf("  the userfaultfd is closed\n");
		outcome.ok = !collapse(&second) && check_collapsed(fd);
		strcat(outcome.text, "; closed: ");
		strcat(outcome.text, second.text);
		munmap(base, HUGE);
	}
	close(fd);
	return outcome;
}

static struct outcome scenario_file(const char *dir)
{
	struct outcome outcome = {};
	char *path;
	int fd;

	if (asprintf(&path, "%s/demo-file", dir) < 0)
		err(1, "asprintf");
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0)
		err(1, "cannot create %s", path);
	for (unsigned long i = 0; i < NR_PAGES; i++)
		fill(expected + i * PAGE, i);
	/* Write one page at a time, so that all folios are small. */
	for (unsigned long i = 0; i < NR_PAGES; i++)
		if (pwrite(fd, expected + i * PAGE, PAGE, i * PAGE) != PAGE)
			err(1, "cannot write %s", path);
	if (fsync(fd))
		err(1, "fsync");
	/* Drop some pages, so that the collapse reads them again. */
	if (posix_fadvise(fd, HUGE / 4, HUGE / 4, POSIX_FADV_DONTNEED))
		err(1, "posix_fadvise");
	close(fd);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		err(1, "cannot open %s", path);
	map_file(fd, PROT_READ);

	page_cache_map(fd, map_before);
	print_map("before", map_before);
	outcome.ok = !collapse(&outcome) && check_collapsed(fd);
	munmap(base, HUGE);
	close(fd);
	unlink(path);
	free(path);
	return outcome;
}

static const struct {
	const char *name;
	struct outcome (*run)(const char *dir);
} scenarios[] = {
	{ "memfd: small, missing, swapped, fallocated", scenario_mixed },
	{ "memfd: holes, userfaultfd waits for them", scenario_userfaultfd },
	{ "file on disk", scenario_file },
};

#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))

int main(int argc, char **argv)
{
	static const char * const impls[] = { "c", "rust" };
	struct outcome outcomes[ARRAY_SIZE(scenarios)][2];
	bool ok = true;
	int dir;

	if (argc != 2) {
		fprintf(stderr, "usage: %s DIRECTORY-ON-EXT4-OR-XFS\n", argv[0]);
		return 2;
	}
	dir = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		err(1, "%s", argv[1]);
	if (pcmap_is_elsewhere(dir))
		errx(1, "%s is " PCMAP_IS_ELSEWHERE, argv[1]);
	close(dir);
	if (access(IMPL, W_OK))
		err(1, "cannot write %s; run as root, with CONFIG_RUST_COLLAPSE_FILE in the kernel",
		    IMPL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	device = pcmap_open();
	if (device < 0)
		return 1;
	write_file(EVENT, "1");
	trace_fd = open(TRACING "trace_pipe", O_RDONLY | O_NONBLOCK);
	if (trace_fd < 0)
		err(1, "cannot open trace_pipe");

	for (unsigned long i = 0; i < ARRAY_SIZE(scenarios); i++) {
		for (int j = 1; j >= 0; j--) {
			printf("\n%s; collapse_file() in %s\n", scenarios[i].name,
			       j ? "Rust" : "C");
			write_file(IMPL, impls[j]);
			outcomes[i][j] = scenarios[i].run(argv[1]);
			ok = ok && outcomes[i][j].ok;
		}
	}

	printf("\n%-44s %-5s %-5s %s\n", "scenario", "C", "Rust", "errno, traced result");
	for (unsigned long i = 0; i < ARRAY_SIZE(scenarios); i++) {
		struct outcome *c = &outcomes[i][0], *rust = &outcomes[i][1];
		bool same = !strcmp(c->text, rust->text);

		printf("%-44s %-5s %-5s %s%s%s\n", scenarios[i].name, c->ok ? "ok" : "WRONG",
		       rust->ok ? "ok" : "WRONG", c->text, same ? "" : " / ",
		       same ? "" : rust->text);
		ok = ok && same;
	}
	write_file(EVENT, "0");
	return ok ? 0 : 1;
}
