/* message_id.c - see the header. */
#include "mime/message_id.h"

#include "base/err.h"
#include "mime/header_lex.h"

#define MESSAGE_ID_MAX 900 /* has to fit on a line */

static bool is_id_byte(unsigned char c)
{
	return c > ' ' && c != 0x7f && c != '<' && c != '>';
}

bool message_id_is_valid(str_t id)
{
	for (size_t i = 0; i < id.n; i++)
		if (!is_id_byte((unsigned char)id.p[i]))
			return false;
	return id.n > 0 && id.n <= MESSAGE_ID_MAX && str_is_utf8(id);
}

static int message_id_fail(const struct header_lex *l, const char *what)
{
	err_set(ERR_INVALID, "invalid message id: %s at position %zu", what, l->at + 1);
	return -1;
}

static int message_id_read(struct header_lex *l, str_t *id)
{
	if (!header_lex_eat(l, '<'))
		return message_id_fail(l, "expected '<'");
	bool is_double = header_lex_eat(l, '<');
	*id = header_lex_run(l, is_id_byte);
	if (id->n == 0)
		return message_id_fail(l, "expected an id");
	if (!header_lex_eat(l, '>') || (is_double && !header_lex_eat(l, '>')))
		return message_id_fail(l, "expected '>'");
	return 0;
}

int message_id_parse(str_t value, str_t *id)
{
	struct header_lex l = {value, 0};
	str_t found;
	header_lex_skip(&l, NULL);
	if (message_id_read(&l, &found) != 0)
		return -1;
	header_lex_skip(&l, NULL);
	if (l.at != value.n)
		return message_id_fail(&l, "expected the end");
	*id = found;
	return 0;
}

int message_id_next(str_t *value, str_t *id)
{
	struct header_lex l = {*value, 0};
	do
		header_lex_skip(&l, NULL);
	while (header_lex_eat(&l, ','));
	if (l.at == value->n) {
		*value = str_skip(*value, l.at);
		return 0;
	}
	if (message_id_read(&l, id) != 0)
		return -1;
	*value = str_skip(*value, l.at);
	return 1;
}

void message_id_write(struct header_writer *w, str_t id)
{
	struct buf b = BUF_INIT;
	buf_add_c(&b, '<');
	buf_add_str(&b, id);
	buf_add_c(&b, '>');
	header_write_token(w, buf_str(&b));
	buf_fini(&b);
}
