/* bench_template.c - CPU of expanding one template for many recipients, compiled once, in both dialects:
 *   bench_template [-n RECIPIENTS] [-l LOOPS]     (default: 10,000 recipients, 10 loops)
 * The template is a message of 2 KB with 10 substitutions, of which 6 are the recipient's own and 4 those of
 * the request, as plain text and, escaped, as HTML. `each` renders with template_render_layered into a new
 * buffer, `run` with a template_run and a buffer that are kept. */
#include "base/alloc.h"
#include "base/err.h"
#include "template/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { N_LAYERS = 3 };

static struct bench {
	unsigned n_recipients, n_loops;
	json_t **own, **names; /* a recipient's substitutions; its name and address */
	json_t *common;
} bench = {.n_recipients = 10000, .n_loops = 10};

static const char bench_paragraph[] = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do "
				      "eiusmod tempor incididunt ut labore et dolore magna aliqua. Ut enim "
				      "ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut "
				      "aliquip ex ea commodo consequat.\r\n";

/* The same text in both: a plain name is written alike. With a loop over three items where `loop` has one. */
static void bench_source(struct buf *b, const char *loop)
{
	static const char *const lines[] = {
		"Subject: Your order {{ order }}\r\nTo: {{ name }} <{{ email }}>\r\n\r\n",
		"Dear {{ name }},\r\n\r\n",
		"your order {{ order }} of {{ date }} comes to {{ total }}.\r\n",
		"It goes to {{ city }}.\r\n",
		"{{ company }}, {{ campaign }}\r\n",
	};
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		buf_add_z(b, lines[i]);
		buf_add_z(b, bench_paragraph);
	}
	buf_add_z(b, loop);
	while (b->n < 2000)
		buf_add_z(b, "-- the end of it --\r\n");
}

static void bench_contexts(void)
{
	bench.own = xcalloc(bench.n_recipients, sizeof(*bench.own));
	bench.names = xcalloc(bench.n_recipients, sizeof(*bench.names));
	for (unsigned i = 0; i < bench.n_recipients; i++) {
		char order[32], email[64];
		snprintf(order, sizeof(order), "A-%08u", i);
		snprintf(email, sizeof(email), "recipient-%u@example.com", i);
		bench.own[i] = json_pack("{s:s,s:s,s:f,s:[{s:s},{s:s},{s:s}]}", "order", order, "city",
					 "S\u00e3o Paulo", "total", 19.9 + i, "items", "title", "bread",
					 "title", "salt", "title", "wine");
		bench.names[i] = json_pack("{s:s,s:s}", "email", email, "name", "Ada & Grace");
	}
	bench.common = json_pack("{s:s,s:s,s:s}", "company", "Example & Sons", "campaign", "Autumn", "date",
				 "2026-11-28");
}

static double bench_cpu(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void bench_one(const char *what, enum template_dialect dialect, enum template_escape escape,
		      const char *loop_text, bool is_run)
{
	struct buf source = BUF_INIT, out = BUF_INIT;
	bench_source(&source, loop_text);
	struct template *t = template_compile_dialect("content", buf_str(&source), dialect, escape);
	struct template_run *run = template_run_new();
	size_t n_bytes = 0;
	double best = 1e9;
	for (unsigned loop = 0; loop < bench.n_loops; loop++) {
		double start = bench_cpu();
		for (unsigned i = 0; i < bench.n_recipients; i++) {
			const json_t *layers[N_LAYERS] = {bench.own[i], bench.names[i], bench.common};
			buf_clear(&out);
			if (t == NULL || (is_run ? template_run_render(run, t, layers, N_LAYERS, &out)
						 : template_render_layered(t, layers, N_LAYERS, &out)) != 0) {
				fprintf(stderr, "bench_template: %s: %s\n", what, err_text());
				exit(1);
			}
			n_bytes += out.n;
			if (!is_run)
				buf_fini(&out);
		}
		double took = bench_cpu() - start;
		best = took < best ? took : best;
	}
	printf("%-24s %-4s %7.3f us an expansion, %zu bytes each from %zu\n", what, is_run ? "run" : "each",
	       best / bench.n_recipients * 1e6, n_bytes / bench.n_recipients / bench.n_loops, source.n);
	template_free(t);
	template_run_free(run);
	buf_fini(&source);
	buf_fini(&out);
}

int main(int argc, char **argv)
{
	for (int c; (c = getopt(argc, argv, "n:l:")) != -1;) {
		if (c != 'n' && c != 'l')
			return 2;
		*(c == 'n' ? &bench.n_recipients : &bench.n_loops) = (unsigned)atoi(optarg);
	}
	if (bench.n_recipients == 0 || bench.n_loops == 0) {
		fprintf(stderr, "bench_template: at least one of each\n");
		return 2;
	}
	bench_contexts();
	static const struct {
		const char *what, *loop;
		enum template_dialect dialect;
		enum template_escape escape;
	} rows[] = {
		{"Jinja, text", "", TEMPLATE_JINJA, TEMPLATE_ESCAPE_NONE},
		{"Jinja, HTML", "", TEMPLATE_JINJA, TEMPLATE_ESCAPE_HTML},
		{"Jinja, text, a loop", "{% for x in items %}{{ loop.index }}. {{ x.title }}\r\n{% endfor %}",
		 TEMPLATE_JINJA, TEMPLATE_ESCAPE_NONE},
		{"Handlebars, text", "", TEMPLATE_HANDLEBARS, TEMPLATE_ESCAPE_NONE},
		{"Handlebars, HTML", "", TEMPLATE_HANDLEBARS, TEMPLATE_ESCAPE_HTML},
		{"Handlebars, text, a loop", "{{#each items}}{{@index}}. {{title}}\r\n{{/each}}",
		 TEMPLATE_HANDLEBARS, TEMPLATE_ESCAPE_NONE},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows) * 2; i++)
		bench_one(rows[i / 2].what, rows[i / 2].dialect, rows[i / 2].escape, rows[i / 2].loop,
			  i % 2 == 1);
	for (unsigned i = 0; i < bench.n_recipients; i++) {
		json_decref(bench.own[i]);
		json_decref(bench.names[i]);
	}
	json_decref(bench.common);
	free(bench.own);
	free(bench.names);
	return 0;
}
