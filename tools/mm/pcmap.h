/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Read the page cache contents of a file from /dev/rust-page-cache-map.
 */
#ifndef PCMAP_H
#define PCMAP_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <linux/magic.h>
#include "../../samples/rust/page_cache_map.h"

/* The sample checks its own types against the same sizes. */
_Static_assert(sizeof(struct page_cache_map_request) == 56, "as in rust_page_cache_map.rs");
_Static_assert(sizeof(struct page_cache_map_entry) == 32, "as in rust_page_cache_map.rs");
_Static_assert(sizeof(struct page_cache_map_vma) == 32, "as in rust_page_cache_map.rs");

#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))

#define PCMAP_DEVICE	"/dev/rust-page-cache-map"
#define PCMAP_NEEDS_ADMIN	"error: " PCMAP_DEVICE " needs CAP_SYS_ADMIN: run this as root\n"

#define PCMAP_IS_ELSEWHERE	"on overlayfs: the page cache is that of the file below it"

struct pcmap {
	int device, fd;
	uint64_t next, end;		/* range of pages not read yet */
	bool shmem;
	unsigned int count, at;		/* entries read, and entries returned */
	struct page_cache_map_entry entries[1024];
};

/* Open the device. On failure, print how to fix it and return -1. */
static inline int pcmap_open(void)
{
	int device = open(PCMAP_DEVICE, O_RDONLY | O_CLOEXEC);

	if (device >= 0)
		return device;
	if (errno == EACCES || errno == EPERM)
		fprintf(stderr, PCMAP_NEEDS_ADMIN);
	else if (errno == ENOENT || errno == ENXIO || errno == ENODEV)
		fprintf(stderr, "error: there is no %s: if CONFIG_SAMPLE_RUST_PAGE_CACHE_MAP is m "
			"in this kernel, run 'modprobe rust_page_cache_map'; else build one with it "
			"and CONFIG_RUST_COLLAPSE_FILE\n", PCMAP_DEVICE);
	else
		fprintf(stderr, "error: cannot open %s: %m\n", PCMAP_DEVICE);
	return -1;
}

/* Return whether another file has the pages of @fd, because it is on overlayfs. */
static inline bool pcmap_is_elsewhere(int fd)
{
	struct statfs fs;

	return !fstatfs(fd, &fs) && fs.f_type == OVERLAYFS_SUPER_MAGIC;
}

/* Start to read the pages of a file from @start up to, but not including, @end. */
static inline void pcmap_begin(struct pcmap *map, int device, int fd, uint64_t start,
			       uint64_t end)
{
	*map = (struct pcmap){ .device = device, .fd = fd, .next = start, .end = end };
}

/*
 * Return the next entry. Return NULL with errno 0 at the end, or with another errno on
 * failure. Entries of different requests may overlap if the file changes.
 */
static inline const struct page_cache_map_entry *pcmap_next(struct pcmap *map)
{
	uint64_t left = map->end - map->next;
	struct page_cache_map_request request = {
		.fd = map->fd,
		.start = map->next,
		.end = map->next +
		       (left < PAGE_CACHE_MAP_MAX_PAGES ? left : PAGE_CACHE_MAP_MAX_PAGES),
		.buffer = (uintptr_t)map->entries,
		.capacity = ARRAY_SIZE(map->entries),
	};

	errno = 0;
	if (map->at < map->count)
		return &map->entries[map->at++];
	if (!left || ioctl(map->device, PAGE_CACHE_MAP_ENTRIES, &request))
		return NULL;
	map->next = request.start;
	map->shmem = request.flags & PAGE_CACHE_MAP_SHMEM;
	map->count = request.count;
	map->at = 0;
	return map->at < map->count ? &map->entries[map->at++] : NULL;
}

/* Return the letter for the pages of an entry. @huge is the PMD order. */
static inline char pcmap_letter(const struct pcmap *map, const struct page_cache_map_entry *entry,
				unsigned int huge)
{
	switch (entry->kind) {
	case PAGE_CACHE_MAP_HOLE:
		return '.';
	case PAGE_CACHE_MAP_VALUE:
		return map->shmem ? 's' : 'e';
	}
	if (!(entry->flags & PAGE_CACHE_MAP_UPTODATE))
		return map->shmem ? 'f' : 'r';
	return !entry->order ? '4' : entry->order < huge ? 'L' : 'H';
}

#endif
