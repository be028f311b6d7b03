/* mime_build_impl.h - what the unit test looks at: no draw of a boundary can be made to collide. */
#pragma once

#include "mime/mime_build.h"

/** Whether a part that stays as it is has the text `boundary` in it. */
bool mime_boundary_is_taken(const struct mime_content *c, str_t boundary);
