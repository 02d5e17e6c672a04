/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The rows of pcmap's picture: what is in each page of a file.
 */
#ifndef PCMAP_PICTURE_H
#define PCMAP_PICTURE_H

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pcmap.h"

#define COLUMNS		64

static const struct {
	char letter;
	const char *text, *colour;
} legend[] = {
	{ '4', "small page", "#56b4e9" },
	{ 'L', "larger folio", "#0072b2" },
	{ 'H', "huge folio", "#009e73" },
	{ 's', "swapped out", "#cc79a7" },
	{ 'e', "evicted", "#999999" },
	{ 'f', "never written", "#e69f00" },
	{ 'r', "being read", "#d55e00" },
	{ '.', "hole", "" },
};

#define NR_LEGEND	ARRAY_SIZE(legend)

/* One page of the picture. */
struct cell {
	char letter;
	uint8_t flags;		/* of the folio */
	bool large, first;	/* part of a large folio, and its first page */
};

struct picture {
	const char *name;
	uint64_t page, end;	/* next page, and one past the last page */
	unsigned int huge;
	struct pcmap map;
	const struct page_cache_map_entry *entry;
	uint64_t pages[128], dirty, writeback, locked;
};

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "error: %s: %m\n", what);
	exit(1);
}

/* Return the PMD order. Assume 9 if the kernel does not report it. */
static unsigned int huge_order(void)
{
	unsigned long size = 0;
	FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", "r");

	if (file) {
		if (fscanf(file, "%lu", &size) != 1)
			size = 0;
		fclose(file);
	}
	return size ? __builtin_ctzl(size / sysconf(_SC_PAGESIZE)) : 9;
}

static const struct page_cache_map_entry *next_entry(struct picture *picture)
{
	const struct page_cache_map_entry *entry = pcmap_next(&picture->map);

	if (!entry && errno == EPERM) {
		fprintf(stderr, PCMAP_NEEDS_ADMIN);
		exit(1);
	}
	if (!entry && errno)
		fail(picture->name);
	return entry;
}

static struct cell next_cell(struct picture *picture)
{
	const struct page_cache_map_entry *entry = picture->entry;
	uint64_t page = picture->page++;
	struct cell cell = { .letter = '.' };

	while (entry && entry->index + entry->nr_pages <= page)
		entry = next_entry(picture);
	picture->entry = entry;
	/* If the file changes, the next entry may begin after this page. */
	if (entry && entry->index <= page) {
		cell.letter = pcmap_letter(&picture->map, entry, picture->huge);
		cell.flags = entry->flags;
		cell.large = entry->order;
		cell.first = cell.large && entry->index == page;
	}
	picture->pages[(unsigned char)cell.letter]++;
	picture->dirty += !!(cell.flags & PAGE_CACHE_MAP_DIRTY);
	picture->writeback += !!(cell.flags & PAGE_CACHE_MAP_WRITEBACK);
	picture->locked += !!(cell.flags & PAGE_CACHE_MAP_LOCKED);
	return cell;
}

/* Read a row. Return the number of its pages, and clear the cells after them. */
static unsigned int next_row(struct picture *picture, struct cell *row)
{
	uint64_t left = picture->end - picture->page;
	unsigned int n = left < COLUMNS ? left : COLUMNS;

	memset(row, 0, COLUMNS * sizeof(*row));
	for (unsigned int i = 0; i < n; i++)
		row[i] = next_cell(picture);
	return n;
}

#endif
