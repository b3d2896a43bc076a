"""What schemathesis must know of our scalars to write values of them; it imports this by name."""

import schemathesis
from hypothesis import strategies as st
from schemathesis.graphql import nodes

schemathesis.graphql.scalar(
    "Decimal", st.decimals(-(10**14), 10**14, places=4).map(str).map(nodes.String)
)
schemathesis.graphql.scalar("BigInt", st.integers(-(2**63), 2**63 - 1).map(str).map(nodes.String))
schemathesis.graphql.scalar(
    "CurrencyCode", st.sampled_from(["EUR", "USD", "XTS"]).map(nodes.String)
)
