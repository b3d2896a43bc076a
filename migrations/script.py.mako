"""${message[:1].upper() + message[1:]}."""
<%
def code(text):
    lines = [line for line in text.splitlines() if "# ### " not in line]
    return "\n".join(lines).strip() or "pass"
%>
import sqlalchemy as sa
from alembic import op
% if imports:
${imports}
% endif

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """Apply to every build."""
    ${code(upgrades or "")}


def downgrade() -> None:
    """Take back, in every build."""
    ${code(downgrades or "")}
