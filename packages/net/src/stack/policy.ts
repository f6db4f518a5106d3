/** The question that is asked once for every flow, before anything leaves. */
import { POLICY_ANSWER_MS_MAX } from '../limits.ts';
import type { FirstBytes } from '../policy/index.ts';

export interface Flow {
  readonly protocol: 'tcp' | 'udp' | 'icmp';
  /** Name of the network. */
  readonly network: string;
  /** Name of the link, which is the machine's. */
  readonly link: string;
  readonly sourceMac: string;
  readonly source: string;
  /** 0 for ICMP, as is the other. */
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
}

export type Verdict =
  /** With `inspect` a connection is opened, and reset when the first bytes of the machine say something else. */
  | { readonly action: 'allow'; readonly inspect?: FirstBytes }
  | { readonly action: 'deny'; readonly reason?: string }
  /** Goes to another place instead; the machine does not see the difference. */
  | { readonly action: 'redirect'; readonly address: string; readonly port: number };

/**
 * May answer at once, which costs no turn of the event loop. What it throws denies the flow, and so does an answer that
 * has not come after {@link POLICY_ANSWER_MS_MAX}.
 */
export type FlowPolicy = (flow: Flow) => Verdict | Promise<Verdict>;

export const ALLOW: Verdict = { action: 'allow' };

/** Calls `then` with the verdict, at once when it is there at once. */
export function judge(policy: FlowPolicy | undefined, flow: Flow, then: (verdict: Verdict) => void): void {
  if (policy === undefined) {
    then(ALLOW);
    return;
  }
  let answer: Verdict | Promise<Verdict>;
  try {
    answer = policy(flow);
  } catch (error) {
    then(failed(error));
    return;
  }
  if (!(answer instanceof Promise)) {
    then(answer);
    return;
  }
  let told = false;
  const tell = (verdict: Verdict): void => {
    clearTimeout(timer);
    if (!told) then(verdict);
    told = true;
  };
  // A policy that forgets a question must not keep the flow, and what it holds, for ever.
  const timer = setTimeout(() => tell(LATE), POLICY_ANSWER_MS_MAX);
  timer.unref();
  answer.then(tell, (error: unknown) => tell(failed(error)));
}

const LATE: Verdict = {
  action: 'deny',
  reason: `the policy did not answer within ${POLICY_ANSWER_MS_MAX / 1000} s`,
};

function failed(error: unknown): Verdict {
  return { action: 'deny', reason: `the policy failed: ${error instanceof Error ? error.message : error}` };
}
