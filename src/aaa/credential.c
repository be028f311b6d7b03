/* credential.c - reading an Authorization header. Strict, because two readers that understand it differently
 * would be two opinions of who is asking. No text that is returned or logged quotes the value. */
#include "aaa/credential.h"

#include "base/secret.h"
#include "base/text.h"

#include <stdlib.h>

static bool credential_is_text(str_t s)
{
	for (size_t i = 0; i < s.n; i++) {
		if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
			return false;
	}
	return str_is_utf8(s);
}

static bool credential_is_token(str_t s)
{
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] <= 0x20 || s.p[i] >= 0x7f) /* signed or not: bytes from 0x80 on are out too */
			return false;
	}
	return s.n != 0;
}

static bool credential_parse_basic(struct arena *arena, struct credential *c, const char **why)
{
	struct buf b = BUF_INIT;
	bool is_good = base64_decode(&b, c->secret) && credential_is_text(buf_str(&b));
	if (is_good) {
		str_t text = arena_str(arena, buf_str(&b));
		ptrdiff_t colon = str_chr(text, ':', 0);
		c->user = colon < 0 ? text : str_head(text, (size_t)colon);
		c->password = colon < 0 ? STR_NULL : str_skip(text, (size_t)colon + 1);
	} else {
		*why = "what follows Basic is not the base64 form of USER:PASSWORD in UTF-8";
	}
	secret_buf_fini(&b);
	return is_good;
}

bool credential_parse(str_t value, struct arena *arena, struct credential *out, const char **why)
{
	struct credential c = {.secret = STR_NULL};
	ptrdiff_t blank = str_chr(value, ' ', 0);
	str_t scheme = blank < 0 ? value : str_head(value, (size_t)blank);
	if (str_ieq(scheme, STR("Basic"))) {
		c.kind = CREDENTIAL_BASIC;
	} else if (str_ieq(scheme, STR("Bearer"))) {
		c.kind = CREDENTIAL_BEARER;
	} else {
		*why = "the scheme must be Basic or Bearer";
		return false;
	}
	if (blank >= 0)
		c.secret = str_skip(value, (size_t)blank);
	while (c.secret.n != 0 && c.secret.p[0] == ' ') /* RFC 9110 section 11.4: one or more */
		c.secret = str_skip(c.secret, 1);
	if (!credential_is_token(c.secret)) {
		*why = c.secret.n == 0 ? "nothing follows the scheme"
				       : "what follows the scheme must be one word of visible characters";
		return false;
	}
	if (c.kind == CREDENTIAL_BASIC && !credential_parse_basic(arena, &c, why))
		return false;
	*out = c;
	return true;
}
