// SPDX-License-Identifier: GPL-2.0
/*
 * Print a map of the page cache of a file.
 *
 * Each page is a letter:
 *	4  small page		L  part of a larger folio	H  part of a huge one
 *	s  swapped out		e  evicted, with a shadow	.  hole
 *	f  allocated and never written (shmem)			r  being read
 *
 * It needs root and a kernel with CONFIG_SAMPLE_RUST_PAGE_CACHE_MAP.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <inttypes.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pcmap_picture.h"

#define CELL		10	/* pixels in an SVG */
#define LEFT		90
#define TOP		44

static const char usage[] =
	"usage: pcmap FILE [--start=PAGE] [--pages=N] [--list | --svg | --watch]\n"
	"\n"
	"Print a map of the page cache of FILE, one letter for each page.\n"
	"  --start=PAGE  first page, counted from 0 (default 0)\n"
	"  --pages=N     number of pages (default: up to the end of the file)\n"
	"  --list        print a line for each folio, swap entry, shadow and hole\n"
	"  --svg         print an SVG image\n"
	"  --watch       print the map again each second, until interrupted\n";

/* Read the VMAs that map the range, up to the number that fits one request. */
static struct page_cache_map_request vmas(const struct picture *picture, uint64_t start,
					  struct page_cache_map_vma *areas)
{
	uint64_t pages = picture->end - start;
	struct page_cache_map_request request = {
		.fd = picture->map.fd,
		.start = start,
		/* The longest range that a request may have. */
		.end = start +
		       (pages < PAGE_CACHE_MAP_MAX_PAGES ? pages : PAGE_CACHE_MAP_MAX_PAGES),
		.buffer = (uintptr_t)areas,
		.capacity = PAGE_CACHE_MAP_MAX_VMAS,
	};

	if (ioctl(picture->map.device, PAGE_CACHE_MAP_VMAS, &request))
		fail(picture->name);
	return request;
}

static const char *modes(uint32_t userfaultfd)
{
	static char text[64];

	snprintf(text, sizeof(text), "%s%s%s%s%s", userfaultfd ? ", userfaultfd:" : "",
		 userfaultfd & PAGE_CACHE_MAP_UFFD_MISSING ? " missing" : "",
		 userfaultfd & PAGE_CACHE_MAP_UFFD_WP ? " wp" : "",
		 userfaultfd & PAGE_CACHE_MAP_UFFD_MINOR ? " minor" : "",
		 userfaultfd & PAGE_CACHE_MAP_UFFD_RWP ? " rwp" : "");
	return text;
}

static void print_text(struct picture *picture)
{
	static struct page_cache_map_vma areas[PAGE_CACHE_MAP_MAX_VMAS];
	uint64_t start = picture->page;
	struct cell rows[2][COLUMNS] = {};
	struct page_cache_map_request request;
	bool folded = false;

	for (unsigned int turn = 0; picture->page < picture->end; turn = !turn) {
		uint64_t page = picture->page;
		unsigned int n = next_row(picture, rows[turn]);
		bool same = page != start;

		for (unsigned int i = 0; i < COLUMNS; i++)
			same = same && rows[0][i].letter == rows[1][i].letter;
		if (same) {
			if (!folded)
				puts("         *");
			folded = true;
			continue;
		}
		folded = false;
		printf("%8" PRIu64 " ", page);
		for (unsigned int i = 0; i < n; i++)
			putchar(rows[turn][i].letter);
		putchar('\n');
	}

	printf("%" PRIu64 " pages", picture->end - start);
	for (unsigned int i = 0; i < NR_LEGEND; i++) {
		uint64_t n = picture->pages[(unsigned char)legend[i].letter];

		if (n)
			printf(", %c %s %" PRIu64, legend[i].letter, legend[i].text, n);
	}
	printf("\ndirty %" PRIu64 ", under writeback %" PRIu64 ", locked %" PRIu64 "\n",
	       picture->dirty, picture->writeback, picture->locked);

	request = vmas(picture, start, areas);
	for (unsigned int i = 0; i < request.count; i++)
		printf("mapped at %" PRIx64 "-%" PRIx64 " from page %" PRIu64 "%s\n",
		       (uint64_t)areas[i].start, (uint64_t)areas[i].end,
		       (uint64_t)areas[i].index, modes(areas[i].userfaultfd));
	if (request.flags & PAGE_CACHE_MAP_MORE)
		puts("and more");
}

static void print_hole(uint64_t start, uint64_t end)
{
	if (end > start)
		printf("%8" PRIu64 " %8" PRIu64 " hole\n", start, end - start);
}

static void print_list(struct picture *picture)
{
	const struct page_cache_map_entry *entry;
	uint64_t hole = picture->page, end = hole;

	puts("   index    pages what");
	while ((entry = next_entry(picture))) {
		if (entry->kind == PAGE_CACHE_MAP_HOLE) {
			end = entry->index + entry->nr_pages;
			continue;
		}
		/* A hole may be reported in parts. Print it as one. */
		print_hole(hole, end);
		hole = entry->index + entry->nr_pages;
		end = hole;
		printf("%8" PRIu64 " %8" PRIu64, (uint64_t)entry->index, (uint64_t)entry->nr_pages);
		if (entry->kind == PAGE_CACHE_MAP_VALUE)
			printf(" %s %#" PRIx64 "\n", picture->map.shmem ? "swapped" : "evicted",
			       (uint64_t)entry->value);
		else
			printf(" folio order %u%s%s%s%s\n", entry->order,
			       entry->flags & PAGE_CACHE_MAP_LOCKED ? " locked" : "",
			       entry->flags & PAGE_CACHE_MAP_UPTODATE ? " uptodate" : "",
			       entry->flags & PAGE_CACHE_MAP_DIRTY ? " dirty" : "",
			       entry->flags & PAGE_CACHE_MAP_WRITEBACK ? " writeback" : "");
	}
	print_hole(hole, end);
}

/* Return a copy of @name that is safe in XML and on terminals. */
static char *clean(const char *name)
{
	char *text = strdup(name);
	bool utf8;

	if (!text)
		fail("strdup");
	utf8 = setlocale(LC_CTYPE, "C.UTF-8") && mbstowcs(NULL, name, 0) != (size_t)-1;
	for (char *at = text; *at; at++)
		if ((unsigned char)*at < ' ' || *at == 0x7f || (!utf8 && *at & 0x80))
			*at = '?';
	return text;
}

static void put_escaped(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (strchr("<>&\"", *text))
			fprintf(out, "&#%d;", *text);
		else
			putc(*text, out);
	}
}

/* Return the CSS class of a letter. '.' and '4' cannot be class names. */
static char svg_class(char letter)
{
	return letter == '.' ? 'o' : letter == '4' ? 'p' : letter;
}

static void svg_rect(FILE *out, char class, unsigned int from, unsigned int to, unsigned int y,
		     unsigned int height)
{
	fprintf(out, "<rect class=\"%c\" x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\"/>\n", class,
		LEFT + from * CELL, y, (to - from) * CELL - 1, height);
}

/* Draw equal neighbours as one rectangle. A grid separates small pages. */
static void svg_row(FILE *out, const struct cell *row, unsigned int n, unsigned int y)
{
	unsigned int from = 0;

	for (unsigned int i = 1; i <= n; i++) {
		const struct cell *cell = &row[from];

		if (i < n && row[i].letter == cell->letter && row[i].flags == cell->flags &&
		    row[i].large == cell->large && !row[i].first)
			continue;
		svg_rect(out, svg_class(cell->letter), from, i, y, CELL - 1);
		if (cell->flags & PAGE_CACHE_MAP_DIRTY)
			svg_rect(out, 'd', from, i, y + CELL - 3, 2);
		if (cell->flags & PAGE_CACHE_MAP_WRITEBACK)
			svg_rect(out, 'w', from, i, y, 2);
		if (cell->flags & PAGE_CACHE_MAP_LOCKED)
			svg_rect(out, 'k', from, i, y + 4, 1);
		if (cell->letter != '.' && !cell->large && i - from > 1)
			svg_rect(out, 'g', from, i, y, CELL - 1);
		from = i;
	}
}

static void svg_text(FILE *out, unsigned int x, unsigned int y, const char *text)
{
	fprintf(out, "<text x=\"%u\" y=\"%u\">", x, y);
	put_escaped(out, text);
	fputs("</text>\n", out);
}

static unsigned int svg_legend(FILE *out, const struct picture *picture, unsigned int y)
{
	unsigned int n = 0;
	char text[128];

	for (unsigned int i = 0; i < NR_LEGEND; i++) {
		uint64_t pages = picture->pages[(unsigned char)legend[i].letter];

		if (!pages)
			continue;
		fprintf(out, "<rect class=\"%c\" x=\"%u\" y=\"%u\" width=\"12\" height=\"12\"/>\n",
			svg_class(legend[i].letter), LEFT + n % 4 * 165, y + n / 4 * 20);
		snprintf(text, sizeof(text), "%s: %" PRIu64, legend[i].text, pages);
		svg_text(out, LEFT + 18 + n % 4 * 165, y + 10 + n / 4 * 20, text);
		n++;
	}
	y += (n + 3) / 4 * 20;
	if (picture->dirty || picture->writeback || picture->locked) {
		snprintf(text, sizeof(text),
			 "marked below: dirty, %" PRIu64 "; above: under writeback, %"
			 PRIu64 "; in the middle: locked, %" PRIu64, picture->dirty,
			 picture->writeback, picture->locked);
		svg_text(out, LEFT, y + 10, text);
		y += 20;
	}
	return y;
}

static void print_svg(struct picture *picture)
{
	static struct page_cache_map_vma areas[PAGE_CACHE_MAP_MAX_VMAS];
	uint64_t start = picture->page, pages = picture->end - start;
	struct cell rows[2][COLUMNS] = {};
	struct page_cache_map_request request;
	unsigned int y = TOP;
	bool folded = false;
	char text[256], *body;
	size_t size;
	FILE *out = open_memstream(&body, &size);

	/* The height is known only after the body, so write the body to memory first. */
	if (!out)
		fail("open_memstream");
	for (unsigned int turn = 0; picture->page < picture->end; turn = !turn) {
		uint64_t page = picture->page;
		unsigned int n = next_row(picture, rows[turn]);

		if (page != start && !memcmp(rows[0], rows[1], sizeof(rows[0]))) {
			if (!folded) {
				svg_text(out, LEFT, y + 9, "\302\267\302\267\302\267 the same");
				y += CELL + 4;
			}
			folded = true;
			continue;
		}
		folded = false;
		fprintf(out, "<text x=\"%u\" y=\"%u\" text-anchor=\"end\">%" PRIu64 "</text>\n",
			LEFT - 8, y + 9, page);
		svg_row(out, rows[turn], n, y);
		y += CELL + 2;
	}
	y = svg_legend(out, picture, y + 14);

	request = vmas(picture, start, areas);
	for (unsigned int i = 0; i < request.count; i++) {
		snprintf(text, sizeof(text), "mapped at %" PRIx64 "-%" PRIx64 " from page %" PRIu64
			 "%s", (uint64_t)areas[i].start, (uint64_t)areas[i].end,
			 (uint64_t)areas[i].index, modes(areas[i].userfaultfd));
		svg_text(out, LEFT, y + 10, text);
		y += 18;
	}
	if (request.flags & PAGE_CACHE_MAP_MORE) {
		svg_text(out, LEFT, y + 10, "and more");
		y += 18;
	}
	if (fclose(out))
		fail("open_memstream");

	printf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %u %u\" "
	       "width=\"%u\" height=\"%u\">\n", LEFT + COLUMNS * CELL + 20, y + 16,
	       LEFT + COLUMNS * CELL + 20, y + 16);
	puts("<title>Page cache map</title>\n<style>\n"
	     ".b, .gl { fill: #ffffff } text { font: 11px sans-serif; fill: #222222 }\n"
	     "text.t { font-size: 14px; font-weight: bold }\n"
	     ".o { fill: none; stroke: #c8c8c8 } .g { fill: url(#grid) }\n"
	     ".d, .k { fill: #222222 } .w { fill: #ffffff; stroke: #222222; stroke-width: 0.5 }");
	for (unsigned int i = 0; i < NR_LEGEND; i++)
		if (*legend[i].colour)
			printf(".%c { fill: %s }\n", svg_class(legend[i].letter), legend[i].colour);
	puts("@media (prefers-color-scheme: dark) {\n"
	     ".b, .gl { fill: #1b1b1b } text { fill: #e4e4e4 } .o { stroke: #555555 }\n"
	     "}\n</style>");
	printf("<defs><pattern id=\"grid\" x=\"%u\" y=\"0\" width=\"%u\" height=\"%u\" "
	       "patternUnits=\"userSpaceOnUse\"><rect class=\"gl\" x=\"%u\" width=\"1\" height=\"%u\"/>"
	       "</pattern></defs>\n", LEFT, CELL, CELL, CELL - 1, CELL);
	puts("<rect class=\"b\" width=\"100%\" height=\"100%\"/>");
	printf("<text class=\"t\" x=\"%u\" y=\"20\">", LEFT);
	put_escaped(stdout, picture->name);
	puts("</text>");
	snprintf(text, sizeof(text), "%" PRIu64 " pages from page %" PRIu64 ", %u in a row", pages,
		 start, COLUMNS);
	svg_text(stdout, LEFT, 35, text);
	fwrite(body, 1, size, stdout);
	puts("</svg>");
	free(body);
}

static bool number(const char *text, uint64_t *value)
{
	char *end;

	/* strtoull() accepts a sign. */
	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*value = strtoull(text, &end, 10);
	return !errno && !*end;
}

static _Noreturn void wrong_usage(void)
{
	fputs(usage, stderr);
	exit(2);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "start", required_argument, NULL, 's' },
		{ "pages", required_argument, NULL, 'p' },
		{ "list", no_argument, NULL, 'l' },
		{ "svg", no_argument, NULL, 'v' },
		{ "watch", no_argument, NULL, 'w' },
		{ "help", no_argument, NULL, 'h' },
		{}
	};
	void (*print)(struct picture *picture) = print_text;
	uint64_t start = 0, pages = UINT64_MAX, size;
	uint64_t page_size = sysconf(_SC_PAGESIZE);
	unsigned int ways = 0, huge;
	static struct picture picture;
	bool watch = false;
	struct stat st;
	int option, device, fd;
	char *name;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 's':
			if (!number(optarg, &start))
				wrong_usage();
			break;
		case 'p':
			if (!number(optarg, &pages))
				wrong_usage();
			break;
		case 'l':
			print = print_list;
			ways++;
			break;
		case 'v':
			print = print_svg;
			ways++;
			break;
		case 'w':
			watch = true;
			ways++;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			wrong_usage();
		}
	}
	if (optind != argc - 1 || ways > 1)
		wrong_usage();

	name = argv[optind];
	device = pcmap_open();
	if (device < 0)
		return 1;
	/* O_NONBLOCK: do not wait for a writer if the file is a FIFO. */
	fd = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		fail(name);
	huge = huge_order();
	name = clean(name);
	if (pcmap_is_elsewhere(fd)) {
		fprintf(stderr, "error: %s is " PCMAP_IS_ELSEWHERE "\n", name);
		return 1;
	}

	for (;;) {
		if (fstat(fd, &st))
			fail(name);
		if (!S_ISREG(st.st_mode)) {
			fprintf(stderr, "error: %s is not a regular file\n", name);
			return 1;
		}
		size = st.st_size / page_size + !!(st.st_size % page_size);
		picture = (struct picture){
			.name = name, .huge = huge, .page = start, .end = start
		};
		if (pages != UINT64_MAX)
			picture.end = start + pages < start ? UINT64_MAX : start + pages;
		else if (start < size)
			picture.end = size;
		/* No index is past the end of the largest possible file. */
		if (picture.end > INT64_MAX / page_size)
			picture.end = INT64_MAX / page_size;
		if (picture.page > picture.end)
			picture.page = picture.end;
		pcmap_begin(&picture.map, device, fd, picture.page, picture.end);
		if (print != print_list)
			picture.entry = next_entry(&picture);

		if (watch && isatty(STDOUT_FILENO))
			fputs("\033[H\033[J", stdout);
		print(&picture);
		if (fflush(stdout) || ferror(stdout))
			fail("cannot write");
		if (!watch)
			return 0;
		sleep(1);
	}
}
