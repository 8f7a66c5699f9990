"""Which permission each method of the Compiler API needs."""

from boardwright.rpc.auth import Permission, permits

PERMISSIONS: dict[str, Permission] = {
    "CreateCompileJob": permits("developer", "parent"),
    "GetCompileJob": permits("viewer", "name"),
    "ListCompileJobs": permits("viewer", "parent"),
    "CancelCompileJob": permits("developer", "name"),
    "RetryCompileJob": permits("developer", "name"),
    "WatchCompileJob": permits("viewer", "name"),
    "GetStepLog": permits("viewer", "name"),
    "ListRecipes": permits("viewer"),
    "ValidateRecipe": permits("viewer"),
}
