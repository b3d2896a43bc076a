// What Relay's compiler makes artifacts of; this file itself is never run.
import { graphql } from 'relay-runtime';

graphql`
  fragment queriesForward_page on Query
  @refetchable(queryName: "queriesForwardQuery")
  @argumentDefinitions(first: { type: "Int", defaultValue: 7 }, after: { type: "String" }, where: { type: "OrderWhere" }) {
    orders(first: $first, after: $after, where: $where) @connection(key: "Forward_orders", filters: ["where"]) {
      edges { node { id orderId status } }
    }
  }
`;

graphql`
  fragment queriesBack_page on Query
  @refetchable(queryName: "queriesBackQuery")
  @argumentDefinitions(last: { type: "Int", defaultValue: 7 }, before: { type: "String" }) {
    orders(last: $last, before: $before) @connection(key: "Back_orders") {
      edges { node { id orderId status } }
    }
  }
`;

graphql`
  fragment queriesOrder_order on Order @refetchable(queryName: "queriesOrderQuery") {
    orderId
    status
  }
`;

graphql`
  subscription queriesLiveSubscription($id: String!) {
    order(orderId: $id) { id status ...queriesOrder_order }
  }
`;
