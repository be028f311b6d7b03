/* glob.c - patterns to files. Braces are expanded first, into plain patterns; each is then walked component
 * by component: one without a wildcard costs a stat, one with a wildcard the reading of its directory. What
 * is found by several patterns, or in several ways by `**`, is told once.
 *
 * Links to directories are followed, as configuration is often mounted that way, but not into a directory
 * that the walk is in already. Depth, alternatives and entries read are bounded. */
#include "policy/glob.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/err.h"

#include <dirent.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { GLOB_MAX_DEPTH = 64, GLOB_MAX_PATTERNS = 1024, GLOB_MAX_ENTRIES = 1000000 };

struct glob_walk {
	struct glob_files *out;
	struct buf path; /* so far */
	const char *component[GLOB_MAX_DEPTH];
	size_t n_components;
	struct {
		dev_t dev;
		ino_t ino;
	} above[GLOB_MAX_DEPTH]; /* the directories that `**` has gone into */
	size_t n_above;
	size_t n_entries; /* read, of all patterns */
};

struct glob_list {
	char **v;
	size_t n;
};

static void glob_list_add(struct glob_list *l, char *text)
{
	l->v = xreallocarray(l->v, l->n + 1, sizeof(*l->v));
	l->v[l->n++] = text;
}

static void glob_list_fini(struct glob_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
}

void glob_files_fini(struct glob_files *f)
{
	for (size_t i = 0; i < f->n; i++)
		free(f->v[i]);
	free(f->v);
	*f = (struct glob_files){NULL, 0};
}

/* --- braces --- */

/* The brace that closes the one at `open`, or NULL. */
static const char *glob_closing_brace(const char *open)
{
	int depth = 0;
	for (const char *p = open; *p != 0; p++) {
		if (*p == '{')
			depth++;
		else if (*p == '}' && --depth == 0)
			return p;
	}
	return NULL;
}

/* Replaces the first pair of braces by each of its
 * alternatives: adds to the list; false when there is none. */
static int glob_expand_first(const char *pattern, struct glob_list *out, bool *has_braces)
{
	const char *open = strchr(pattern, '{');
	*has_braces = open != NULL;
	if (open == NULL)
		return 0;
	const char *close = glob_closing_brace(open);
	if (close == NULL) {
		err_set(ERR_INVALID, "a { is not closed");
		return -1;
	}
	int depth = 0;
	const char *from = open + 1;
	for (const char *p = from; p <= close; p++) {
		if (p == close || (*p == ',' && depth == 0)) {
			glob_list_add(out, xasprintf("%.*s%.*s%s", (int)(open - pattern), pattern,
						     (int)(p - from), from, close + 1));
			from = p + 1;
		} else if (*p == '{') {
			depth++;
		} else if (*p == '}') {
			depth--;
		}
	}
	return 0;
}

/* The plain patterns that `pattern` stands for. */
static int glob_expand(const char *pattern, struct glob_list *out)
{
	struct glob_list todo = {NULL, 0};
	int rc = -1;
	glob_list_add(&todo, xstrdup(pattern));
	for (size_t i = 0; i < todo.n; i++) {
		bool has_braces;
		if (glob_expand_first(todo.v[i], &todo, &has_braces) != 0)
			goto out;
		if (todo.n > GLOB_MAX_PATTERNS) {
			err_set(ERR_INVALID, "more than %d alternatives", GLOB_MAX_PATTERNS);
			goto out;
		}
		if (!has_braces)
			glob_list_add(out, xstrdup(todo.v[i]));
	}
	rc = 0;
out:
	glob_list_fini(&todo);
	return rc;
}

int glob_check(const char *pattern)
{
	struct glob_list l = {NULL, 0};
	int rc = glob_expand(pattern, &l);
	glob_list_fini(&l);
	return rc;
}

/* --- walking --- */

static int glob_walk_from(struct glob_walk *w, size_t i);

static void glob_add_file(struct glob_walk *w)
{
	struct glob_files *f = w->out;
	f->v = xreallocarray(f->v, f->n + 1, sizeof(*f->v));
	f->v[f->n++] = str_dup(buf_str(&w->path));
}

/* Goes on with the component i below w->path plus name, which is there or not. */
static int glob_enter(struct glob_walk *w, const char *name, size_t i)
{
	struct stat st;
	size_t n_before = w->path.n;
	int rc = 0;
	if (n_before != 0 && w->path.p[n_before - 1] != '/')
		buf_add_c(&w->path, '/');
	buf_add_z(&w->path, name);
	if (stat(w->path.p, &st) == 0) {
		if (i == w->n_components && S_ISREG(st.st_mode))
			glob_add_file(w);
		else if (i < w->n_components && S_ISDIR(st.st_mode))
			rc = glob_walk_from(w, i);
	}
	buf_truncate(&w->path, n_before);
	return rc;
}

/* As above for each entry of the directory that matches; pattern NULL: every directory, by `**`. */
static int glob_enter_matching(struct glob_walk *w, const char *pattern, size_t i)
{
	DIR *dir = opendir(w->path.n != 0 ? w->path.p : ".");
	struct dirent *e;
	int rc = 0;
	if (dir == NULL)
		return 0;
	while (rc == 0 && (e = readdir(dir)) != NULL) {
		if (++w->n_entries > GLOB_MAX_ENTRIES) {
			err_set(ERR_LIMIT, "there are more than %d files to look through", GLOB_MAX_ENTRIES);
			rc = -1;
		} else if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
			continue;
		} else if (pattern != NULL ? fnmatch(pattern, e->d_name, FNM_PERIOD) == 0
					   : e->d_name[0] != '.' && e->d_type != DT_REG) {
			rc = glob_enter(w, e->d_name, i);
		}
	}
	closedir(dir);
	return rc;
}

/* `**` at i: what follows it is looked for here and in every directory below. */
static int glob_walk_any(struct glob_walk *w, size_t i)
{
	struct stat st;
	const char *rest = i + 1 < w->n_components ? NULL : "*"; /* at the end of a pattern: every file */
	if (stat(w->path.n != 0 ? w->path.p : ".", &st) != 0)
		return 0;
	for (size_t k = 0; k < w->n_above; k++) {
		if (w->above[k].dev == st.st_dev && w->above[k].ino == st.st_ino)
			return 0;
	}
	if (w->n_above == GLOB_MAX_DEPTH)
		return 0;
	w->above[w->n_above].dev = st.st_dev;
	w->above[w->n_above++].ino = st.st_ino;
	int rc = rest != NULL ? glob_enter_matching(w, rest, i + 1) : glob_walk_from(w, i + 1);
	if (rc == 0)
		rc = glob_enter_matching(w, NULL, i);
	w->n_above--;
	return rc;
}

static int glob_walk_from(struct glob_walk *w, size_t i)
{
	const char *c = w->component[i];
	if (strcmp(c, "**") == 0)
		return glob_walk_any(w, i);
	if (strpbrk(c, "*?[\\") != NULL)
		return glob_enter_matching(w, c, i + 1);
	return glob_enter(w, c, i + 1);
}

/* pattern has no braces; it is cut into its components. */
static int glob_walk_pattern(struct glob_walk *w, char *pattern)
{
	char *rest = pattern, *c;
	w->n_components = w->n_above = 0;
	buf_clear(&w->path);
	if (pattern[0] == '/')
		buf_add_c(&w->path, '/');
	while ((c = strsep(&rest, "/")) != NULL) {
		if (c[0] == 0)
			continue;
		if (w->n_components == GLOB_MAX_DEPTH) {
			err_set(ERR_LIMIT, "a pattern has more than %d components", GLOB_MAX_DEPTH);
			return -1;
		}
		w->component[w->n_components++] = c;
	}
	return w->n_components != 0 ? glob_walk_from(w, 0) : 0;
}

static int glob_cmp(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void glob_sort(struct glob_files *f)
{
	size_t n = 0;
	if (f->n != 0)
		qsort(f->v, f->n, sizeof(*f->v), glob_cmp);
	for (size_t i = 0; i < f->n; i++) {
		if (n != 0 && strcmp(f->v[n - 1], f->v[i]) == 0)
			free(f->v[i]);
		else
			f->v[n++] = f->v[i];
	}
	f->n = n;
}

void glob_files_add(struct glob_files *f, const char *path)
{
	f->v = xreallocarray(f->v, f->n + 1, sizeof(*f->v));
	f->v[f->n++] = xstrdup(path);
	glob_sort(f);
}

int glob_find(const char *const *pattern, size_t n, struct glob_files *out)
{
	struct glob_list plain = {NULL, 0};
	struct glob_files found = {NULL, 0};
	struct glob_walk *w = xnew(struct glob_walk);
	int rc = -1;
	w->out = &found;
	for (size_t i = 0; i < n; i++) {
		if (glob_expand(pattern[i], &plain) != 0) {
			err_wrap("%s", pattern[i]);
			goto out;
		}
	}
	for (size_t i = 0; i < plain.n; i++) {
		if (glob_walk_pattern(w, plain.v[i]) != 0)
			goto out;
	}
	glob_sort(&found);
	*out = found;
	rc = 0;
out:
	if (rc != 0)
		glob_files_fini(&found);
	buf_fini(&w->path);
	free(w);
	glob_list_fini(&plain);
	return rc;
}
