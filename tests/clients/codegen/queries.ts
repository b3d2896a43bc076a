// What graphql-codegen makes types of, and a program that must compile with them.
import type { ResultOf, VariablesOf } from '@graphql-typed-document-node/core';
import { graphql } from './made/gql.js';

export const Page = graphql(`
  query Page($first: Int!, $after: String, $where: OrderWhere, $orderBy: [OrderSort!]) {
    orders(first: $first, after: $after, where: $where, orderBy: $orderBy) {
      totalCount
      nodes { ...Line payments(first: 2) { nodes { paymentId amount status } } }
      pageInfo { hasNextPage endCursor }
    }
    position { token lagMs caughtUp partitions { topic partition offset } }
  }
`);

export const Line = graphql(`
  fragment Line on Order {
    orderId status amount placedAt discount
    items { sku quantity unitPrice }
    source { topic offset }
  }
`);

export const Live = graphql(`
  subscription LiveDay($day: Date!, $currency: CurrencyCode!) {
    dailySale(day: $day, currency: $currency) { ordered outstanding orderCount }
  }
`);

export const variables: VariablesOf<typeof Page> = {
  first: 2,
  where: { status: { in: ['PLACED', 'SHIPPED'] }, placedAt: { gte: '2026-01-01T00:00:00Z' } },
  orderBy: [{ field: 'PLACED_AT', direction: 'DESC' }],
};

export const read = (data: ResultOf<typeof Page>, day: ResultOf<typeof Live>) => {
  const token: string = data.position.token;
  const lagMs: number | null | undefined = data.position.lagMs;
  const ordered: string | undefined = day.dailySale?.ordered;
  for (const order of data.orders.nodes) {
    const amount: string = order.amount;
    // @ts-expect-error Money is text, never a number.
    const wrong: number = order.amount;
    // @ts-expect-error There is no such field.
    void order.nothing;
    void [amount, wrong];
  }
  return { token, lagMs, ordered };
};

// @ts-expect-error There is no such state.
export const unknown: VariablesOf<typeof Page> = { first: 1, where: { status: { eq: 'LOST' } } };
