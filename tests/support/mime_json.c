/* mime_json.c - builds messages for mime_diff.py: one JSON object a line on stdin, the message on stdout,
 * after its length in bytes. With "rebuild": true the message goes through our parser and comes out as it is
 * rebuilt. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/text.h"
#include "mime/mime_build.h"
#include "mime/mime_conform.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static str_t json_text(const json_t *obj, const char *key)
{
	const json_t *v = json_object_get(obj, key);
	return v != NULL ? str_mk(json_string_value(v), json_string_length(v)) : STR_NULL;
}

static struct mime_address json_address(const json_t *v)
{
	return (struct mime_address){.email = json_text(v, "email"), .name = json_text(v, "name")};
}

static int build(const json_t *root, struct buf *out)
{
	const json_t *headers = json_object_get(root, "headers"),
		     *files = json_object_get(root, "attachments");
	size_t n_headers = json_array_size(headers), n_parts = json_array_size(files);
	struct mime_header *header = xcalloc(n_headers + 1, sizeof *header);
	struct mime_encoded_part *part = xcalloc(n_parts + 1, sizeof *part);
	struct mime_content c = {.text_body = json_text(root, "text_body"),
				 .html_body = json_text(root, "html_body"),
				 .amp_html_body = json_text(root, "amp_html_body"),
				 .subject = json_text(root, "subject"),
				 .from = json_address(json_object_get(root, "from")),
				 .reply_to = json_address(json_object_get(root, "reply_to")),
				 .header = header,
				 .n_headers = n_headers,
				 .part = part,
				 .n_parts = n_parts};
	struct mime_address to = json_address(json_object_get(root, "to"));
	int rc = mime_check_address(&to, "to");
	for (size_t i = 0; i < n_headers; i++) {
		const json_t *pair = json_array_get(headers, i), *k = json_array_get(pair, 0),
			     *v = json_array_get(pair, 1);
		header[i].name = str_mk(json_string_value(k), json_string_length(k));
		header[i].value = str_mk(json_string_value(v), json_string_length(v));
	}
	for (size_t i = 0; i < n_parts && rc == 0; i++) {
		const json_t *f = json_array_get(files, i);
		struct buf data = BUF_INIT;
		if (!base64_decode(&data, json_text(f, "data")))
			exit(2);
		struct mime_attachment a = {.data = buf_str(&data),
					    .content_type = json_text(f, "content_type"),
					    .content_id = json_text(f, "content_id"),
					    .file_name = json_text(f, "file_name")};
		a.is_inline = a.content_id.p != NULL;
		rc = mime_check_attachment(&a, "content", i);
		if (rc == 0)
			mime_encode_attachment(&a, &part[i]);
		buf_fini(&data);
	}
	rc = rc == 0 ? mime_check_content(&c, "content") : rc;
	if (rc == 0) {
		mime_build_recipient(&c, &to, STR("id1"), STR("example.com"), out);
		mime_build_rest(&c, out);
	}
	for (size_t i = 0; i < n_parts; i++)
		mime_encoded_part_fini(&part[i]);
	free(part);
	free(header);
	return rc;
}

static void rebuild(struct buf *message)
{
	struct mime_part *p = mime_part_parse(buf_str(message)), *rebuilt = mime_part_rebuild(p, NULL);
	struct buf same = BUF_INIT;
	mime_part_write(p, &same);
	if (!str_eq(buf_str(&same), buf_str(message)))
		exit(3);
	buf_clear(message);
	mime_part_write(rebuilt, message);
	mime_part_unref(p);
	mime_part_unref(rebuilt);
	buf_fini(&same);
}

int main(void)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	while ((n = getline(&line, &cap, stdin)) > 0) {
		struct buf out = BUF_INIT;
		json_t *root = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, NULL);
		if (root == NULL)
			return 2;
		if (build(root, &out) != 0) {
			printf("error %s\n", err_text());
			err_clear();
		} else {
			if (json_is_true(json_object_get(root, "rebuild")))
				rebuild(&out);
			printf("%zu\n", out.n);
			fwrite(out.p, 1, out.n, stdout);
		}
		fflush(stdout);
		buf_fini(&out);
		json_decref(root);
	}
	free(line);
	return 0;
}
