// SPDX-License-Identifier: GPL-2.0
/*
 * Print, parse and generate the histories of collapse_fuzz.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collapse_file_util.h"
#include "collapse_fuzz.h"

/*
 * Print and parse histories.
 */
void print_history(const struct history *history, FILE *out)
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

char *history_text(const struct history *history)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	print_history(history, out);
	fclose(out);
	return text;
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

bool parse_history(struct history *history, const char *text)
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
bool has_op(const struct history *history, const char *name)
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

void generate(struct history *history, uint64_t seed)
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
