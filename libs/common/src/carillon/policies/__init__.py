"""Policies for what happens inside of a task: small pieces that can be put into each other (decision 0022).

```python
PAYMENTS = Breaker("payments", failures=5, within=timedelta(minutes=1), pause=timedelta(seconds=30))

@tasks.task()
async def charge(order: str, *, policies: Policies, client: Client) -> dict[str, str]:
    \"\"\"Charge one order. Safe to run twice: ...\"\"\"
    async with policies.breaker(PAYMENTS):
        return await client.charge(order)
```

A policy is declared as a value at the top of a module, and used by `Policies`, which every worker and every rehearsal
provides. What all workers have to know of it is in the ledger.
"""

from carillon.policies.batch import Batch, Summary
from carillon.policies.breaker import Breaker
from carillon.policies.bulkhead import Bulkhead
from carillon.policies.effect import Effect
from carillon.policies.fallback import Answer, Fallback
from carillon.policies.policies import Policies
from carillon.policies.throttle import Throttle

__all__ = ["Answer", "Batch", "Breaker", "Bulkhead", "Effect", "Fallback", "Policies", "Summary", "Throttle"]
