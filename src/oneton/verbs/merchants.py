"""All that merchants may ask for, in one."""

from __future__ import annotations

from dataclasses import dataclass

from oneton.verbs.forget_merchant_user import ForgetMerchantUser
from oneton.verbs.merchant_liveness import MerchantLiveness
from oneton.verbs.merchant_tokens import MerchantTokens
from oneton.verbs.merchant_uploads import MerchantUploads
from oneton.verbs.merchant_users import MerchantUsers


@dataclass(frozen=True)
class Merchants:
    """The verbs of CypherFace's dialect."""

    tokens: MerchantTokens
    users: MerchantUsers
    forget_user: ForgetMerchantUser
    uploads: MerchantUploads
    liveness: MerchantLiveness
