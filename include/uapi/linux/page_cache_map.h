/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * /dev/rust-page-cache-map: what the page cache holds of a file, and who maps it.
 *
 * Both ioctls take a struct page_cache_map_request and fill an array that it points
 * to. The caller needs CAP_SYS_ADMIN, as addresses of other processes are told, and
 * has to have the file open for reading.
 *
 * What is told has been so at some moment. Only what PAGE_CACHE_MAP_ENTRIES tells of
 * one aligned range that a PMD maps is of the same moment, if it fits an array of
 * PAGE_CACHE_MAP_BATCH entries.
 *
 * A file of overlayfs has neither pages nor VMAs: the file below it has them.
 *
 * Errors: EPERM without the capability; EBADF for a file descriptor that is not open for
 * reading; EINVAL for what is not a regular file, for a start behind the end, an end behind the
 * largest file, no capacity, or a field set that must be 0; E2BIG for a range of more
 * than PAGE_CACHE_MAP_MAX_PAGES; EFAULT for bad addresses; ENOMEM. After an error
 * the array may have been written to, and the request has not.
 */
#ifndef _UAPI_LINUX_PAGE_CACHE_MAP_H
#define _UAPI_LINUX_PAGE_CACHE_MAP_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Of one request: pages in the range, VMAs, and entries that are read at once. */
#define PAGE_CACHE_MAP_MAX_PAGES	0x100000
#define PAGE_CACHE_MAP_MAX_VMAS		1024
#define PAGE_CACHE_MAP_BATCH		128

/* Flags of an answer. */

/* Not all of the range is in it. */
#define PAGE_CACHE_MAP_MORE		0x1
/* The file is shmem: values are swap entries. */
#define PAGE_CACHE_MAP_SHMEM		0x2

/**
 * struct page_cache_map_request - what is asked, and how much was answered
 * @fd: the file
 * @flags: must be 0; then PAGE_CACHE_MAP_MORE, PAGE_CACHE_MAP_SHMEM
 * @start: index of the first page that matters; for PAGE_CACHE_MAP_ENTRIES then that
 *	of the first page not answered for, where another request can go on
 * @end: index behind the last page that matters
 * @buffer: address of the array
 * @capacity: elements that it has room for
 * @count: ignored; then elements that were written
 * @reserved: must be 0
 *
 * Indices count pages of the system's page size, from the begin of the file.
 */
struct page_cache_map_request {
	__s32 fd;
	__u32 flags;
	__u64 start;
	__u64 end;
	__u64 buffer;
	__u32 capacity;
	__u32 count;
	__u64 reserved[2];
};

/* Kinds of entries. */

/* Nothing is there. */
#define PAGE_CACHE_MAP_HOLE		0
/* A number: a swap entry of shmem, else the shadow of a reclaimed folio, or DAX memory. */
#define PAGE_CACHE_MAP_VALUE		1
/* A folio. */
#define PAGE_CACHE_MAP_FOLIO		2

/* Flags of a folio. */
#define PAGE_CACHE_MAP_LOCKED		0x1
#define PAGE_CACHE_MAP_UPTODATE		0x2
#define PAGE_CACHE_MAP_DIRTY		0x4
#define PAGE_CACHE_MAP_WRITEBACK	0x8

/**
 * struct page_cache_map_entry - what the page cache has for some pages
 * @index: index of the first page
 * @nr_pages: number of pages
 * @value: the number, if it is one
 * @kind: PAGE_CACHE_MAP_HOLE, PAGE_CACHE_MAP_VALUE or PAGE_CACHE_MAP_FOLIO
 * @order: base-2 logarithm of @nr_pages; 0 for a hole
 * @flags: of a folio
 *
 * Entries come by rising index and without gaps. A folio that begins before the
 * range or ends behind it is told of as a whole. A hole may be told of in parts.
 */
struct page_cache_map_entry {
	__u64 index;
	__u64 nr_pages;
	__u64 value;
	__u16 kind;
	__u16 order;
	__u32 flags;
};

/* What is reported to a userfaultfd: UFFDIO_REGISTER_MODE_*. */
#define PAGE_CACHE_MAP_UFFD_MISSING	0x1
#define PAGE_CACHE_MAP_UFFD_WP		0x2
#define PAGE_CACHE_MAP_UFFD_MINOR	0x4
#define PAGE_CACHE_MAP_UFFD_RWP		0x8

/**
 * struct page_cache_map_vma - a VMA that maps a page of the range
 * @start: address of the first byte, in some process
 * @end: address behind the last byte
 * @index: index in the file of the first page
 * @userfaultfd: PAGE_CACHE_MAP_UFFD_*
 * @reserved: 0
 *
 * VMAs come by no particular order.
 */
struct page_cache_map_vma {
	__u64 start;
	__u64 end;
	__u64 index;
	__u32 userfaultfd;
	__u32 reserved;
};

/* What the page cache holds. */
#define PAGE_CACHE_MAP_ENTRIES	_IOWR('|', 0x90, struct page_cache_map_request)
/* Who maps it. There is no going on: PAGE_CACHE_MAP_MORE tells of too little room. */
#define PAGE_CACHE_MAP_VMAS	_IOWR('|', 0x91, struct page_cache_map_request)

#endif /* _UAPI_LINUX_PAGE_CACHE_MAP_H */
