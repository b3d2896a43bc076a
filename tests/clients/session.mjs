// A session that never goes back: what was seen last is asked for again, by every way of asking.
//
// Works with whatever speaks `subscribe(payload, sink)`: graphql-ws and graphql-sse alike.

// A subscription that goes on where it was when its connection broke.
export const resuming = (client) => ({
  ...client,
  subscribe(payload, sink) {
    const extensions = { ...payload.extensions };
    return client.subscribe(
      { ...payload, extensions },
      {
        ...sink,
        next(result) {
          const seen = result.extensions?.consistency;
          if (seen) extensions.consistency = { atLeast: seen.position, resultId: seen.resultId };
          sink.next(result);
        },
      },
    );
  },
});

// A fetch for one session: each answer contains at least what the one before contained.
export const sessionFetch = () => {
  let position;
  return async (address, init = {}) => {
    const headers = new Headers(init.headers);
    if (position) headers.set('viewkeeper-at-least', position);
    const response = await fetch(address, { ...init, headers });
    position = response.headers.get('viewkeeper-position') ?? position;
    return response;
  };
};

// Patient: a server that restarts is away for a moment.
export const patience = {
  retryAttempts: Infinity,
  shouldRetry: () => true,
  retryWait: () => new Promise((resolve) => setTimeout(resolve, 100)),
};
