"use strict";

const SAMPLE = `# One operation reads one snapshot of all views. "extensions.consistency" below the
# data says which events it contains. Ctrl-Enter runs this.
query Shop {
  orders(first: 3, orderBy: [{ field: PLACED_AT, direction: DESC }]) {
    totalCount
    nodes {
      orderId
      status
      currency
      amount
      outstanding
      payments(first: 2) {
        nodes {
          paymentId
          status
          amount
        }
      }
    }
  }
  position {
    token
    lagMs
    caughtUp
  }
}
`;

ReactDOM.createRoot(document.getElementById("ide")).render(
  React.createElement(GraphiQL, {
    fetcher: GraphiQL.createFetcher({ url: "/graphql" }),
    defaultQuery: SAMPLE,
    defaultEditorToolsVisibility: true,
  }),
);
